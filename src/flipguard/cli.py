"""The command line: one function per verb. Its docstring is the help, its return value the exit code."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from flipguard import __version__, options
from flipguard.errors import ToldElsewhereError, inert, told
from flipguard.output import as_json, reserved, say
from flipguard.processes import before_torch, end, is_first

Arguments = argparse.Namespace
PASSED, WRONG, INTERRUPTED = 0, 2, 130


def main(words: Sequence[str] | None = None) -> int:
    """Align language models without breaking what already worked, and prove it.

    The whole way, each step a command that reads and writes files:

      sandbox  → a small world to try everything in
      train    → a recipe becomes a model, guarded against negative flips
      generate → both models answer the same prompts
      judge    → each pair of answers is graded
      compare  → what got worse, with intervals, a report and an exit code

    `flipguard demo` goes the whole way once; `flipguard VERB --help` explains one.

    exit codes: 0 pass, or no limit asked; 1 fail: regression; 2 the command or a
    file is wrong; 3 inconclusive; 4 invalid (alignment or judge errors)
    """
    words = list(sys.argv[1:] if words is None else words)
    parser, verbs = _parsers()
    arguments, rest = parser.parse_known_args(words)
    if arguments.verb == "train":
        arguments.overrides = options.overrides(rest, verbs["train"])
    elif rest:
        verbs[arguments.verb].error(options.unknown(rest[0], verbs[arguments.verb]))
    arguments.command = ["flipguard", *words]
    return end(_shielded(arguments.run, arguments))


def demo(arguments: Arguments) -> int:
    """See it work on a laptop in about four minutes: sandbox, train, compare, report.

    Trains a tiny model, aligns it with plain DPO (or PPO), with distillation and
    with FlipGuard, and compares each with the model before alignment, on prompts
    that none of them has seen. Ends in a table and in OUT/report/index.html.
    Broken off or run again, it goes on where it was.
    """
    before_torch()
    from flipguard.demo import run_demo, summary, to_json

    done = run_demo(arguments.out, seed=arguments.seed, algorithms=arguments.algorithms)
    _tell(arguments, summary(done), to_json(done))
    return PASSED


def sandbox(arguments: Arguments) -> int:
    r"""Write a small world whose true reward is known: data, a tiny model, recipes.

    A noisy judge who knows the true reward makes pairs of two answers per prompt:

      flipguard sandbox --out world
      flipguard train world/recipes/sft.yaml
      flipguard generate --model world/runs/sft --samples 2 --temperature 1 \
        --max-new-tokens 24 --prompts world/data/preference_prompts.jsonl \
        --out world/samples.jsonl
      flipguard sandbox --pairs-from world/samples.jsonl --out world
      flipguard train world/recipes/dpo_flipguard.yaml
    """
    if arguments.pairs_from is not None:
        from flipguard.sandbox.pairs import make_pairs

        target = arguments.out / "data" / f"{arguments.pairs_to}.jsonl"
        counts = asdict(make_pairs(arguments.pairs_from, target, seed=arguments.seed, scale=arguments.scale))
        _tell(arguments, f"{target}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()), counts)
        return PASSED
    from flipguard.sandbox.write import write_sandbox

    write_sandbox(arguments.out, seed=arguments.seed)
    recipe = str(arguments.out / "recipes" / "sft.yaml")
    _tell(arguments, f"{arguments.out}: data, model and recipes. Next: flipguard train {recipe}", {"recipe": recipe})
    return PASSED


def train(arguments: Arguments) -> int:
    """Run one training stage: sft, reward, or an alignment: dpo, kto, ppo, rloo ...

    Every value of the recipe can be overridden by its dotted name:
      flipguard train dpo.yaml --constraint.gamma 0.1 --trainer.max_steps 100

    The output folder is a normal Hugging Face model folder with a model card; the
    metrics of every step are in its trainer_state.json. A run that was broken off
    goes on with --resume from its last checkpoint, to the same result.
    --check-data only lists what is wrong with the data, row by row.
    """
    before_torch()
    if arguments.check_data:
        from flipguard.train.data_report import check_data

        report = check_data(arguments.recipe, arguments.overrides, out=arguments.out)
        _tell(arguments, report.render(), report.to_json())
        return PASSED if report.trainable else WRONG
    from flipguard.train.run import train as run_recipe

    done = run_recipe(arguments.recipe, arguments.overrides, resume=arguments.resume, overwrite=arguments.overwrite)
    told = "was finished already" if done.already_done else f"trained on {done.data}"
    if is_first():
        _tell(arguments, f"{done.path}: {told}", asdict(done) | {"path": str(done.path)})
    return PASSED


def plot(arguments: Arguments) -> int:
    """Draw how training went: flip rate, KL, rewards and loss, one line per run.

    RUN is the output folder of a training, by `flipguard train` or by any Hugging
    Face trainer (TRL's too), or a trainer_state.json. Evaluation is dotted.

      flipguard plot runs/dpo runs/dpo_flipguard --out curves.png

    With --scatter, RUN is a file of `flipguard judge`, and every prompt a point.
    """
    from flipguard.curves.plot import plot_runs
    from flipguard.curves.scatter import plot_scatter

    runs, out = arguments.runs, arguments.out
    scatter = arguments.scatter
    done = plot_scatter(runs, out, margin=arguments.margin) if scatter else plot_runs(runs, out, arguments.metrics)
    _tell(arguments, done.told(), asdict(done))
    return PASSED


def generate(arguments: Arguments) -> int:
    """Let a model answer prompts: prompts.jsonl -> generations.jsonl.

    A prompt row is {"id": 1, "prompt": "text" or [{"role", "content"}, ...]}; other
    keys are kept. Answers are written as they come: the same command after a kill
    goes on and ends in the same file. Greedy unless --temperature is given.
    """
    before_torch()
    from flipguard.evaluate.generate import GenerateOptions
    from flipguard.evaluate.generate import generate as run

    summary = run(GenerateOptions(**options.of(GenerateOptions, arguments)))
    done = (
        " (was there already)" if summary.already else f" ({summary.resumed:,} were there)" if summary.resumed else ""
    )
    _tell(
        arguments,
        f"{summary.out}: {summary.rows:,} answers to {summary.prompts:,} prompts{done};\n"
        f"{summary.stopped:,} ended, {summary.cut_off:,} cut off, {summary.failed:,} failed",
        asdict(summary),
    )
    return PASSED


def judge(arguments: Arguments) -> int:
    """Grade two models' answers to the same prompts: generations -> judgments.jsonl.

    A judge is exact_match (against each row's "reference"), reward_model (--model
    names a folder, hub id or URL), or a scorer of yours, package.module:function:
    f(prompts, completions, **columns) -> list of numbers, None where it cannot
    tell, as TRL's reward functions are. Resumes like generate.
    """
    from flipguard.evaluate.judge import JudgeOptions
    from flipguard.evaluate.judge import judge as run

    summary = run(JudgeOptions(**options.of(JudgeOptions, arguments)))
    unmatched = summary.only_old + summary.only_new
    _tell(
        arguments,
        f"{summary.out}: {summary.matched:,} pairs judged, {summary.invalid:,} of them invalid;\n"
        f"{unmatched:,} answers without a partner, {summary.changed_prompts:,} changed prompts",
        asdict(summary),
    )
    return PASSED


def compare(arguments: Arguments) -> int:
    """Compare two runs prompt by prompt: what got worse, and is it too much?

      flipguard compare old.jsonl new.jsonl --max-nfr 0.05

    OLD and NEW hold one {"id": ..., "score": 0.7} or {"id": ..., "correct": true} a
    line; or OLD alone is a file of judgments, which holds both sides. Writes
    report.html, report.md, junit.xml, comparison.json and flips.jsonl.

    With --max-nfr the exit code is a verdict on the negative flip rate (NFR):
    0 its one-sided 95 % upper bound is within the limit, 1 its lower bound is
    above, 3 the data cannot tell, 4 the runs do not fit together. --policy takes
    all limits from a file; the worst of its rules is the verdict.
    """
    from flipguard.evaluate.compare import Options, compare_files
    from flipguard.evaluate.gate import EXIT_CODES
    from flipguard.evaluate.report import terminal
    from flipguard.evaluate.results import append_summary, write_results

    told, out = Options(**options.of(Options, arguments)), arguments.out
    result = compare_files(arguments.old, arguments.new, told, command=arguments.command, folder=out)
    write_results(out, result)
    append_summary(out / "report.md")
    text = f"{terminal.render(result.comparison)}\nReport: {out / 'report.html'}"
    _tell(arguments, text, result.comparison.to_json())
    return EXIT_CODES[result.comparison.verdict]


def plan(arguments: Arguments) -> int:
    """How many prompts does a comparison need to pass a limit?

    If the true negative flip rate is --true-nfr (by default half the limit), how
    many prompts make `compare --max-nfr LIMIT` pass with probability --power?
    """
    from flipguard.evaluate.stats import largest_passing_k, prompts_needed

    true_nfr = arguments.limit / 2 if arguments.true_nfr is None else arguments.true_nfr
    prompts = prompts_needed(arguments.limit, true_nfr, arguments.power)
    flips = largest_passing_k(prompts, arguments.limit)
    _tell(
        arguments,
        f"{prompts:,} prompts: up to {flips:,} negative flips pass a limit of {arguments.limit:.4g},\n"
        f"and with a true rate of {true_nfr:.4g} so few happen with probability {arguments.power:.4g}",
        {"prompts": prompts, "largest_passing_k": flips, "limit": arguments.limit, "true_nfr": true_nfr},
    )
    return PASSED


VERBS: dict[Callable[[Arguments], int], Callable[[argparse.ArgumentParser], None]] = {
    demo: options.demo,
    sandbox: options.sandbox,
    train: options.train,
    plot: options.plot,
    generate: options.generate,
    judge: options.judge,
    compare: options.compare,
    plan: options.plan,
}


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    style: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = argparse.ArgumentParser(prog="flipguard", description=inspect.getdoc(main), **style)
    parser.add_argument("--version", action="version", version=f"flipguard {__version__}")
    group = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs = {}
    for verb, add_options in VERBS.items():
        text = inspect.getdoc(verb) or ""
        verbs[verb.__name__] = group.add_parser(verb.__name__, help=text.splitlines()[0], description=text, **style)
        add_options(verbs[verb.__name__])
        verbs[verb.__name__].add_argument("--json", action="store_true", help="print the result for machines")
        verbs[verb.__name__].set_defaults(run=verb)
    return parser, verbs


def _tell(arguments: Arguments, text: str, result: Any) -> None:
    """Print `text` for people, or keep `result` as JSON until the verb has ended."""
    if arguments.json:
        arguments.result = as_json(result)
    else:
        say(text)


def _shielded(run: Callable[[Arguments], int], arguments: Arguments) -> int:
    """Run a verb; what goes wrong is one line and exit code 2, never 1, which would say that the model got worse."""
    code = PASSED
    try:
        with reserved(wanted=arguments.json):
            code = run(arguments)
        if "result" in arguments:
            say(arguments.result)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; the verdict stays what it is
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _fail(arguments, "interrupted. The same command goes on (train: with --resume).")
        return INTERRUPTED
    except ToldElsewhereError:
        return WRONG
    except Exception as error:
        if os.environ.get("FLIPGUARD_TRACEBACK"):
            raise
        return _fail(arguments, told(error))
    return code


def _fail(arguments: Arguments, message: str) -> int:
    one_line = "".join(letter if letter.isprintable() else " " for letter in message)
    sys.stderr.write(f"flipguard {arguments.verb}: {inert(one_line)}\n")
    return WRONG


if __name__ == "__main__":
    sys.exit(main())
