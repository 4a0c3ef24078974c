"""LocalScore's figure of a model on a machine, derived from cells that ran its tests.

Source: localscore/localscore.cpp of Mozilla's llamafile (get_baseline_test_configs, getResultsSummary) and localscore/benchmark.cpp
(test_prompt, test_gen, avg_ts, ttft); models and sizes: https://localscore.ai/blog and src/lib/config.ts of cjpais/LocalScore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from harness.evidence.medians import mean
from harness.records.cells import Record, Sample, is_measured
from harness.units import NS_PER_S


@dataclass(frozen=True, slots=True)
class ScoreTest:
    """One of LocalScore's tests: tokens of a prompt and of the text behind it, and the use that it stands for."""

    n_prompt: int
    n_gen: int
    use: str


#: All of them, in LocalScore's order.
TESTS = (
    ScoreTest(1024, 16, "a title"),
    ScoreTest(4096, 256, "a summary"),
    ScoreTest(2048, 256, "code to be mended"),
    ScoreTest(2048, 768, "a chat about code"),
    ScoreTest(1024, 1024, "code, to and fro"),
    ScoreTest(1280, 3072, "thinking about code"),
    ScoreTest(384, 1152, "writing code, to and fro"),
    ScoreTest(64, 1024, "writing code"),
    ScoreTest(16, 1536, "answers, stories, thinking"),
)

#: Some of them, which take a sixth of the time: their figure is not comparable.
QUICK = tuple(test for test in TESTS if (test.n_prompt, test.n_gen) in {(1024, 16), (2048, 256), (64, 1024)})


#: Settings that LocalScore measures with (localscore/cmd.cpp, localscore.cpp); with others it is another test.
SETTINGS = MappingProxyType({"n_batch": 2048, "n_ubatch": 512, "flash_attn": "off", "type_k": "f16", "type_v": "f16"})


@dataclass(frozen=True, slots=True)
class OfficialModel:
    """A model that LocalScore's site compares machines by; description and n_params are llama.cpp's."""

    size: str
    name: str
    description: str
    n_params: int


OFFICIAL = (
    OfficialModel("tiny", "Llama 3.2 1B Instruct Q4_K_M", "llama 1B Q4_K - Medium", 1_235_814_400),
    OfficialModel("small", "Meta Llama 3.1 8B Instruct Q4_K_M", "llama 8B Q4_K - Medium", 8_030_261_248),
    OfficialModel("medium", "Qwen2.5 14B Instruct Q4_K_M", "qwen2 14B Q4_K - Medium", 14_770_033_664),
)

#: n_params of a file may exceed the published count by llama3's rope_freqs (half a head).
_ROPE_PARAMS = 256


@dataclass(frozen=True, slots=True)
class ScoredTest:
    """What a test came to, each the mean of its repetitions, as LocalScore has it.

    The generation's time begins with the prompt's end; the first token is there when the first generated one was decoded.
    """

    test: ScoreTest
    n_repetitions: int
    prompt_rate_tok_per_s: float
    gen_rate_tok_per_s: float
    first_token_ns: float


@dataclass(frozen=True, slots=True)
class Score:
    """The tests that have a result, of one model on one machine with the same settings; those that were not measured are missing.

    changed names the settings that are not LocalScore's.
    """

    tests: tuple[ScoredTest, ...]
    missing: tuple[ScoreTest, ...] = ()
    official: OfficialModel | None = None  #: None: LocalScore's site has other models beside this one
    changed: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every test of LocalScore's has a result."""
        return not self.missing

    @property
    def is_comparable(self) -> bool:
        """Whether LocalScore's site has figures of the same tests of the same model."""
        return self.is_whole and not self.changed and self.official is not None

    @property
    def prompt_rate_tok_per_s(self) -> float:
        return self._mean(lambda test: test.prompt_rate_tok_per_s)

    @property
    def gen_rate_tok_per_s(self) -> float:
        return self._mean(lambda test: test.gen_rate_tok_per_s)

    @property
    def first_token_ns(self) -> float:
        return self._mean(lambda test: test.first_token_ns)

    @property
    def value(self) -> float:
        """Ten times the geometric mean of prompt tokens/s, generated tokens/s and first tokens/s, each the mean of all tests."""
        per_s = NS_PER_S / self.first_token_ns  # 1000 / ttft_ms
        return 10 * (self.prompt_rate_tok_per_s * self.gen_rate_tok_per_s * per_s) ** (1 / 3)

    def _mean(self, of: Callable[[ScoredTest], float]) -> float:
        return mean([of(test) for test in self.tests])


def score_cells(records: Iterable[Record]) -> Score | None:
    """The score of cells that ran LocalScore's tests, of each test by its latest; None where no test has a result."""
    latest = {
        (record.asked.n_prompt, record.asked.n_gen): record
        for record in records
        if is_measured(record) and not record.asked.n_depth and not record.failure
    }
    found = [(test, latest.get((test.n_prompt, test.n_gen))) for test in TESTS]
    scored = [_score(test, record.timed) for test, record in found if record is not None]
    if not scored:
        return None
    last = next(record for _, record in reversed(found) if record is not None)
    missing = tuple(test for test, record in found if record is None)
    changed = tuple(name for name, usual in SETTINGS.items() if getattr(last.asked, name) != usual)
    return Score(tuple(scored), missing, find_official(last), changed)


def _score(test: ScoreTest, timed: Sequence[Sample]) -> ScoredTest:
    prompts = [sample.prompt_ns or sample.duration_ns for sample in timed]
    texts = [max(sample.duration_ns - prompt, 1) for sample, prompt in zip(timed, prompts, strict=True)]
    firsts = [
        prompt + (sample.token_ns[0] if sample.token_ns else 0) for sample, prompt in zip(timed, prompts, strict=True)
    ]
    return ScoredTest(
        test,
        len(timed),
        mean([test.n_prompt * NS_PER_S / ns for ns in prompts]),
        mean([test.n_gen * NS_PER_S / ns for ns in texts]),
        mean(firsts),
    )


def find_official(record: Record) -> OfficialModel | None:
    """The official model that does the same work: of the same architecture, tensor types and number of parameters."""
    model = record.model
    if model is None:
        return None
    return next(
        (
            one
            for one in OFFICIAL
            if one.description == model.description and 0 <= model.n_params - one.n_params <= _ROPE_PARAMS
        ),
        None,
    )
