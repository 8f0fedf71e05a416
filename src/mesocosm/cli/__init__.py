"""The door: `mesocosm` with its commands."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mesocosm import __version__
from mesocosm.lab.files import RunError, UserError

EXAMPLES = """examples:
  mesocosm list                                 all studies, tasks, models, methods and measures
  mesocosm show hidden-progress                 a study's question, claims and presets
  mesocosm run disagreement                     run a study: verdicts, figures, report.html
  mesocosm run hidden-progress --preset smoke   in seconds, to see that everything works
  mesocosm run flip-flop --help                 all settings of a study
  mesocosm run flip-flop --dry-run              what it would cost
  mesocosm sweep flip-flop --vary learning_rate=0.003,0.005,0.01 --vary length=32,64
  mesocosm sample flip-flop --count 1000 --to flip-flop.jsonl
  mesocosm measure memorization --data photos/  which of your own examples are memorised?
  mesocosm report                               one page over all runs in runs/
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} --help`)")


def parser() -> Parser:
    whole = Parser(
        prog="mesocosm",
        description="A laboratory for the science of deep learning at small scale.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"mesocosm {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help, allow_abbrev=False)

    listing = command("list", "List studies, tasks, models, methods and measures.")
    listing.add_argument("--json", action="store_true", help="as JSON, one object a piece")
    show = command("show", "Explain a study, task, model, method or measure.")
    show.add_argument("name", help="its name, as `mesocosm list` gives it")
    run = command("run", "Run a study to verdicts, figures and a page.")
    run.add_argument("study", help="its name, as `mesocosm list` gives it")
    run.add_argument("settings", nargs=argparse.REMAINDER, help="see `mesocosm run STUDY --help`")
    sweep = command("sweep", "Run a study at every point of a grid of settings.")
    sweep.add_argument("study", help="its name, as `mesocosm list` gives it")
    sweep.add_argument("settings", nargs=argparse.REMAINDER, help="see `mesocosm sweep STUDY --help`")
    resume = command("resume", "Go on with a run or a sweep that was interrupted.")
    resume.add_argument("run", type=Path, help="run folder, or sweep folder")
    resume.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to compute (default: cpu)")
    resume.add_argument("--compile", action="store_true", help="compile the training step")
    resume.add_argument("--on", help="spread what is to be trained over a Ray cluster: ray, or ray://HOST:PORT")
    resume.add_argument("--shard", action="store_true", help="split each network over torchrun's processes")
    for name, help in (
        ("judge", "Judge a run's claims again, from its records."),
        ("draw", "Draw a run's figures again, from its records."),
    ):
        command(name, help).add_argument("run", type=Path, help="run folder")
    report = command("report", "Make one page over many runs.")
    report.add_argument("runs", nargs="*", type=Path, help="run folders (default: all in runs/)")
    report.add_argument("--to", type=Path, default=Path("report"), help="folder of the page (default: report)")
    report.add_argument("--markdown", action="store_true", help="write a Markdown file a run in place of the page")
    report.add_argument("--name", help="name of a single run's Markdown file (default: its study's)")
    sample = command("sample", "Write samples of a task, with targets, weights and hidden state.")
    sample.add_argument("task", help="its name, as `mesocosm list` gives it")
    sample.add_argument("settings", nargs=argparse.REMAINDER, help="see `mesocosm sample TASK --help`")
    measure = command("measure", "Measure examples of your own: a table, or a folder of pictures.")
    measure.add_argument(
        "what",
        choices=["memorization"],
        metavar="WHAT",
        help="memorization: how much more often models are right about an example that they trained on",
    )
    measure.add_argument("settings", nargs=argparse.REMAINDER, help="see `mesocosm measure WHAT --help`")
    bench = command("bench", "Time every study, and see where its time goes.")
    bench.add_argument("what", choices=["studies"], metavar="WHAT", help="studies: time, memory and shares of each")
    bench.add_argument("--only", nargs="+", metavar="STUDY", default=[], help="studies to run (default: all)")
    bench.add_argument("--preset", choices=["smoke", "small", "paper"], default="small", help="default: small")
    to = "folder of the runs and the table; studies that are in it already are not run again (default: bench)"
    bench.add_argument("--to", type=Path, default=Path("bench"), help=to)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status: 2 for what was asked wrongly, 1 for what failed, 130 on interrupt."""
    try:
        asked = vars(parser().parse_args(arguments))
        return _dispatch(asked.pop("command"), asked)
    except UserError as error:
        return _complain(error, 2)
    except BrokenPipeError:
        # Whoever reads the output has seen enough, as `| head` has.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RunError, OSError) as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)


def _dispatch(command: str, asked: dict) -> int:
    if command in ("list", "show"):
        from mesocosm.cli import look

        return look.list_pieces(**asked) if command == "list" else look.show(**asked)
    if command == "sample":
        from mesocosm.cli.sample import sample

        return sample(**asked)
    if command == "sweep":
        from mesocosm.cli.sweep import sweep

        return sweep(**asked)
    if command == "measure":
        from mesocosm.cli.measure import measure

        return measure(**asked)
    if command == "bench":
        from mesocosm.cli.bench import bench_studies

        return bench_studies(asked["only"], asked["preset"], asked["to"])
    from mesocosm.cli import runs

    return int(getattr(runs, command)(**asked))


def _complain(error: object, status: int) -> int:
    print(f"mesocosm: error: {' '.join(str(error).split())}", file=sys.stderr)
    return status
