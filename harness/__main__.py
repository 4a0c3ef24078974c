"""Where the program starts: `harness` and `python -m harness`. Interrupts are minded before anything that takes time is imported."""

from harness.host import interrupt


def main() -> None:
    """Run the command line."""
    interrupt.leave_at_once()
    from harness.cli import main as run

    run()


if __name__ == "__main__":
    main()
