"""The command ``cnnvis``: verbs, and how their failures become one line and an exit code."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from cnnvis_ray import __version__
from cnnvis_ray.errors import CnnvisError, InterruptedRunError, RefusedError
from cnnvis_ray.stages import VERBS

# Threads that wait for one another give their core away instead of spinning: beside one other
# busy process, 48 small pictures on two cores took 6 s instead of 74 s. It holds for this process
# and the actors of a local cluster, since it is set before NumPy or torch is loaded.
WAITING = ("OMP_WAIT_POLICY", "PASSIVE")

REPLACEABLE = ("images", "extract", "maximize", "explain", "reduce", "mosaic")

# Each verb's help ends with its example.
EXAMPLES = {
    "run": "cnnvis run photos/ --set network.name=resnet18",
    "extract": "cnnvis extract --config mine.yaml --set extract.pooling=max",
    "maximize": "cnnvis maximize runs/mine --set maximize.channels=0:16",
    "explain": "cnnvis explain runs/mine --set explain.images=64",
    "reduce": "cnnvis reduce runs/mine --set reduce.perplexity=50 --replace reduce",
    "mosaic": "cnnvis mosaic runs/mine --set mosaic.background=black",
    "report": "cnnvis report runs/mine",
    "quickstart": "cnnvis quickstart runs/quickstart --set maximize.layers=[]",
    "init": "cnnvis init mine.yaml",
    "plan": "cnnvis plan --config mine.yaml",
    "place": "cnnvis place runs/mine --source tonight/ --name 2026-11-24",
    "audit": "cnnvis audit runs/mine --layer layer4",
    "verify": "cnnvis verify runs/mine --sweep",
    "status": "cnnvis status runs/mine",
    "show": "cnnvis show runs/mine",
    "compare": "cnnvis compare runs/alexnet runs/resnet18 --layer features.*",
    "layers": "cnnvis layers resnet50",
}
# A refusal that contains the words ends with the page that helps.
PAGES = {
    "--replace": "docs/explanation/ledger.md",
    "hdf5": "docs/howto/hdf5.md",
    "s3://": "docs/howto/s3.md",
    "weights": "docs/howto/weights.md",
    "factory": "docs/howto/network.md",
    "gpus_per_worker": "docs/nightly.md",
    "cluster.address": "docs/nightly.md",
    "cnnvis init": "docs/tutorial.md",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        The exit code: 0 done, 1 something is missing, 2 refused, 3 held, 130 interrupted.
    """
    parsed = parser().parse_args(arguments)
    os.environ.setdefault(*WAITING)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if parsed.verbose:
        logging.getLogger("cnnvis_ray").setLevel(logging.DEBUG)
    for chatty in ("openTSNE", "ray", "botocore", "aiobotocore", "faiss", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    act: Callable[[argparse.Namespace], None] = parsed.act
    try:
        act(parsed)
    except CnnvisError as failure:
        return fail(str(failure), failure.exit_code)
    except ModuleNotFoundError as missing:
        return fail(
            f"{sys.executable} has no module {missing.name!r}; use the Python that cnnvis_ray is "
            "installed in (for jobs: source .venv/bin/activate before ray start)",
            RefusedError.exit_code,
        )
    except KeyboardInterrupt:
        return fail("interrupted; run the same command again to continue", 130)
    except BrokenPipeError:
        return 0
    except OSError as failure:
        where = f" {failure.filename!r}" if failure.filename else ""
        return fail(f"cannot use{where}: {failure.strerror or failure}", 1)
    return 0


def leave(exit_code: int) -> NoReturn:
    """End the process; at once when interrupted, since Ray kills a stopped job after 3 s.

    Everything is written and Ray is left by then; taking torch apart took up to 5 s (measured).
    """
    if exit_code == InterruptedRunError.exit_code:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)


def fail(message: str, exit_code: int) -> int:
    """Print a failure: one line, or one per refusal."""
    sys.stdout.flush()
    for line in message.splitlines() or [""]:
        pages = [page for words, page in PAGES.items() if words in line]
        help_page = f" (see {pages[0]})" if pages and exit_code == RefusedError.exit_code else ""
        print(f"cnnvis: {' '.join(line.split())}{help_page}", file=sys.stderr)
    return exit_code


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(
        prog="cnnvis",
        description="Shows what convolutional networks see, over image sets of any size.",
        epilog="start with: cnnvis quickstart, or cnnvis run photos/; then cnnvis show RUN. "
        "cnnvis VERB --help ends with an example.",
    )
    top.add_argument("--version", action="version", version=f"cnnvis_ray {__version__}")
    top.add_argument("--verbose", action="store_true", help="debug lines, one per work unit")
    verbs = top.add_subparsers(metavar="VERB", required=True)
    for verb, (text, _) in VERBS.items():
        add_stage(verbs, verb, text)
    quickstart = add_verb(verbs, "quickstart", "train on digits and run every stage")
    quickstart.add_argument(
        "run_dir", nargs="?", default="runs/quickstart", help="where to write (%(default)s)"
    )
    add_settings(quickstart)
    add_replace(quickstart)
    quickstart.set_defaults(act=do_quickstart)
    init = add_verb(verbs, "init", "write a commented configuration")
    init.add_argument(
        "file", nargs="?", default="cnnvis.yaml", help="a new YAML file (%(default)s)"
    )
    init.set_defaults(act=do_init)
    plan = add_verb(verbs, "plan", "what an extraction will cost, from one probe batch")
    plan.add_argument("run_dir", nargs="?", help="a run, whose configuration is used")
    plan.add_argument("--config", help="a YAML file; see cnnvis init")
    add_settings(plan)
    plan.set_defaults(act=do_plan)
    add_place(verbs)
    add_readers(verbs)
    add_compare(verbs)
    layers = add_verb(verbs, "layers", "the layers of a network, in execution order")
    layers.add_argument("name", help="torchvision's name, timm:NAME, or package.module:factory")
    layers.add_argument(
        "--size", type=int, help="pixels of the input's side, where no preprocess states it"
    )
    add_settings(layers)
    layers.set_defaults(act=do_layers)
    return top


def add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", verb: str, text: str
) -> argparse.ArgumentParser:
    """Add a verb with its help, which ends with an example."""
    example = f"example: {EXAMPLES[verb]}" if verb in EXAMPLES else None
    return verbs.add_parser(verb, help=text, description=text, epilog=example)


def add_stage(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", verb: str, text: str
) -> None:
    """Describe a verb that computes."""
    stage = add_verb(verbs, verb, text)
    stage.add_argument(
        "run_dir", nargs="?", help="a run, whose configuration is used, or a folder of images"
    )
    stage.add_argument("--config", help="a YAML file; see cnnvis init")
    add_settings(stage)
    add_replace(stage)
    stage.add_argument(
        "--keep",
        action="store_true",
        help="with a run: the settings become the run's, not only this invocation's",
    )
    stage.set_defaults(act=do_stage, verb=verb)


def add_place(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verbs ``place`` and ``audit``."""
    place = add_verb(verbs, "place", "new images on a frozen map, and what changed")
    place.add_argument("run_dir", help="a run with a map, which stays as it is")
    place.add_argument("--source", required=True, help="of the new images, or the run's own")
    place.add_argument("--name", required=True, help="of the night: placed/NAME")
    add_settings(place)
    place.set_defaults(act=do_place)
    audit = add_verb(
        verbs, "audit", "duplicates, wrong labels, outliers and broken classes of a run's images"
    )
    audit.add_argument("run_dir", help="a run with features")
    audit.add_argument("--layer", help="whose features are compared (default: the last)")
    audit.set_defaults(act=do_audit)


def add_readers(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verbs that only read a run."""
    verify = add_verb(verbs, "verify", "every file of a run against its marker")
    verify.add_argument("run_dir", help="a run directory")
    verify.add_argument(
        "--sweep", action="store_true", help="delete what attempts that did not win have left"
    )
    verify.set_defaults(act=do_verify)
    status = add_verb(verbs, "status", "how far a run is, also while it is written")
    status.add_argument("run_dir", help="a run directory")
    status.set_defaults(act=do_status)
    show = add_verb(verbs, "show", "where to look in a run; opens its report on a terminal")
    show.add_argument("run_dir", help="a run directory")
    show.set_defaults(act=do_show)


def add_compare(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb ``compare``."""
    compare = add_verb(verbs, "compare", "the same images through several networks or layers")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="a run directory")
    compare.add_argument(
        "--layer", action="append", default=[], help="a name or glob (repeatable; default: all)"
    )
    compare.add_argument("--name", default="default", help="of the comparison, in the first run")
    compare.set_defaults(act=do_compare)


def add_settings(verb: argparse.ArgumentParser) -> None:
    """Describe ``--set``."""
    verb.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one key"
    )


def add_replace(verb: argparse.ArgumentParser) -> None:
    """Describe ``--replace``."""
    verb.add_argument(
        "--replace",
        action="append",
        default=[],
        choices=REPLACEABLE,
        help="do a stage again, with what depends on it (repeatable)",
    )


def do_stage(parsed: argparse.Namespace) -> None:
    """Run a verb that computes and print the last screen."""
    from cnnvis_ray.stages.configuration import configured

    config = configured(parsed.run_dir, parsed.config, parsed.set)
    from cnnvis_ray.stages.run import run_verb

    keep = parsed.keep or parsed.config is not None
    if parsed.set and not keep:
        logging.getLogger(__name__).info(
            "--set holds for this invocation alone; --keep makes it the run's"
        )
    print("\n".join(run_verb(parsed.verb, config, parsed.replace, keep)))


def do_quickstart(parsed: argparse.Namespace) -> None:
    """Train the digits network and run every stage."""
    from cnnvis_ray.stages.quickstart import quickstart

    print("\n".join(quickstart(parsed.run_dir, parsed.set, parsed.replace)))


def do_init(parsed: argparse.Namespace) -> None:
    """Write a commented configuration."""
    from cnnvis_ray.stages.configuration import write_commented

    write_commented(parsed.file)
    print(f"wrote {parsed.file}; set images.source and network in it, then: ", end="")
    print(f"cnnvis run --config {parsed.file}")


def do_plan(parsed: argparse.Namespace) -> None:
    """Print what an extraction will cost."""
    from cnnvis_ray.stages.configuration import configured
    from cnnvis_ray.stages.plan import plan

    print("\n".join(plan(configured(parsed.run_dir, parsed.config, parsed.set))))


def do_verify(parsed: argparse.Namespace) -> None:
    """Verify a run."""
    from cnnvis_ray.stages.verify import verify

    print("\n".join(verify(parsed.run_dir, parsed.sweep)))


def do_status(parsed: argparse.Namespace) -> None:
    """Print how far a run is."""
    from cnnvis_ray.stages.status import status

    print("\n".join(status(parsed.run_dir)))


def do_place(parsed: argparse.Namespace) -> None:
    """Place a night and print the verdict."""
    from cnnvis_ray.stages.configuration import configured

    config = configured(parsed.run_dir, None, parsed.set)
    from cnnvis_ray.stages.place import place

    print("\n".join(place(parsed.run_dir, config, parsed.source, parsed.name)))


def do_audit(parsed: argparse.Namespace) -> None:
    """Audit a run's images."""
    from cnnvis_ray.stages.audit import audit

    print("\n".join(audit(parsed.run_dir, parsed.layer)))


def do_show(parsed: argparse.Namespace) -> None:
    """Print where to look and open the report."""
    import webbrowser

    from cnnvis_ray.stages.status import show

    print("\n".join(show(parsed.run_dir)))
    page = Path(parsed.run_dir) / "report" / "index.html"
    if page.exists() and sys.stdout.isatty():
        webbrowser.open(page.absolute().as_uri())


def do_compare(parsed: argparse.Namespace) -> None:
    """Compare runs."""
    from cnnvis_ray.stages.compare import compare

    print("\n".join(compare(parsed.runs, parsed.layer, parsed.name)))


def do_layers(parsed: argparse.Namespace) -> None:
    """Print a network's layers."""
    from cnnvis_ray.stages.layers import describe_layers

    print(describe_layers(parsed.name, parsed.set, parsed.size))


def command() -> None:
    """Run the command ``cnnvis`` and end the process.

    A user's own network lies in the working directory, where ``python -m`` would look too.
    """
    sys.path.insert(0, str(Path.cwd()))
    leave(main())


if __name__ == "__main__":
    command()
