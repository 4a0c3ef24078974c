"""What strangers write where a name belongs: each an attack on some output, all with the word EVIL in them."""

from __future__ import annotations

ATTACKS = {
    # A terminal: colours, the screen, its title, a link, the clipboard, C1 and DEL, backspaces; and a formula of spreadsheets.
    "control": "=EVIL(1)\x1b[31m\x1b[2J\x1b]0;EVIL\x07\x1b]8;;http://EVIL/\x1b\\x\x1b]52;c;RVZJTA==\x07\x9b31m\x9d0;E\x9c\x7f\b\b\x00",
    # Directions, isolates, what nobody sees, line ends of Unicode, half a character, and what is none.
    "unseen": "@EVIL\u202egpj.\u202c\u2066a\u2069\u200b\u2060\ufeff\u00ad\u2028\u2029\x85\u3164\u034f\ufe0f\U000e0041\U000e0100\udcff\ufffe\uffff",
    "heaped": "\u0338e" + "\u0301\u0489" * 40 + "EVIL",
    "wide": "\u6a21\uff21" * 300 + "EVIL",
    "long": "EVIL " + "x" * 20_000 + " " + "y " * 20_000,
    "lines": "EVIL\nEVIL\r\n\tEVIL\r=EVIL\v\f",
    "heading": "# EVIL\n> EVIL",
    "list": "1. EVIL *EVIL* __EVIL__ ~~EVIL~~ last~1 last~2",
    "rule": "===\n---\n~~~ EVIL",
    "link": "[EVIL](http://EVIL/) ![EVIL](http://EVIL/x.png) [EVIL]: http://EVIL/ [EVIL][EVIL] <http://EVIL/> www.EVIL.org a@EVIL.org @EVIL",
    "note": "[^EVIL]: EVIL | `EVIL` ``` $EVIL$ \\| \\",
    "entity": "&#x202e;EVIL&lt;script&gt; &#27;[2J &rlm;",
    "tag": "<script>EVIL</script><img src=x onerror=EVIL><a href='javascript:EVIL'>\"' onload=EVIL x=\"</style></title></svg>]]><!--",
    "template": "{{ EVIL }}{% raw %}{0}{x.__class__}%s%(x)s ${EVIL}",
    "formula": "\t=EVIL(1)",
    "parted": "a;=EVIL;+EVIL\t=EVIL|'\";=EVIL",
    "full-width": "\uff1dEVIL(1)",
    "sql": "'; DROP TABLE llama_bench; -- EVIL \\'; /* \"",
    "shell": "-EVIL $(EVIL) `EVIL` ; EVIL & | > EVIL %EVIL% !EVIL \u2019; EVIL; \u2018",
    "mathtext": r"$\frac{EVIL}{2}$ \alpha ^_{",
}  # fmt: skip
