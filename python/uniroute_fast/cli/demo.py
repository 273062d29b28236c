"""Fit a router, add LLMs, route and evaluate, on data made up on the spot.

It shows what the parts do; how well the method does on real outcomes is in the docs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.files import whole_file
from uniroute_fast.cli.output import add_json, columns, report
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    import argparse

    from uniroute_fast import Router
    from uniroute_fast.datasets import Dataset
    from uniroute_fast.evaluate import DeferralCurve, Split

PEERS = ("best_single", "zero_router", "knn", "oracle")
EXAMPLES = (
    "What is 17 times 23, plus 4?",
    "Write a Rust function that merges a list of 40 timestamps.",
    "Write a haiku about a stray cat.",
    "May a tenant end the lease without notice?",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("--prompts", type=int, default=3000, metavar="N", help="default: 3000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="out", metavar="DIR", help="for the plot (default: out)")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Run the main job end to end."""
    if args.prompts < 100:
        raise InvalidArgumentError(f"--prompts: {args.prompts}; expected at least 100")
    if args.seed < 0:
        raise InvalidArgumentError(f"--seed: {args.seed}; expected 0 or more")
    from uniroute_fast.cli.made_up import make_dataset
    from uniroute_fast.evaluate import area, qnc, random_split

    start = time.perf_counter()
    data = make_dataset(args.prompts, seed=args.seed)
    split = random_split(data, args.seed)
    router, seconds = fit_and_add(data, split)
    test = data.select(split.test, split.unseen)

    begun = time.perf_counter()
    router.route_batch(list(test.texts))
    seconds["route"] = time.perf_counter() - begun
    curves = trace(data, split, router, args.seed)
    figures: dict[str, Any] = {
        "data": "made up",
        "prompts": len(data.ids),
        "seen": len(split.seen),
        "added": len(split.unseen),
        "labels_per_model": len(split.validation),
        "clusters": router.n_clusters,
        "seconds": seconds,
        "methods": {
            name: {
                "area": area(curve, test.costs),
                "qnc": qnc(curve, test.scores, test.costs),
                "peak_quality": float(curve.quality.max()),
            }
            for name, curve in curves.items()
        },
        "plot": plot(curves, Path(args.out)),
    }
    figures["seconds"]["total"] = time.perf_counter() - start
    report(args.json, figures, _text(figures, data, router, len(test.ids)))


def fit_and_add(data: Dataset, split: Split) -> tuple[Router, dict[str, float]]:
    """Fit on the training prompts and the seen LLMs, then add the others; time both."""
    from uniroute_fast import Outcomes, Router

    train = data.select(split.train, split.seen)
    labelled = data.select(split.validation, split.unseen)
    times = [time.perf_counter()]
    router = Router.fit(list(train.texts), seen=Outcomes(train.losses, train.models))
    times.append(time.perf_counter())
    router.add_models(labelled.models, labelled.costs, list(labelled.texts), labelled.losses)
    times.append(time.perf_counter())
    return router, {"fit": times[1] - times[0], "add": times[2] - times[1]}


def trace(data: Dataset, split: Split, router: Router, seed: int) -> dict[str, DeferralCurve]:
    """Return the deferral curves of the router and its peers on the test prompts."""
    from uniroute_fast.evaluate import METHODS, deferral_curve
    from uniroute_fast.evaluate.trial import make_trial
    from uniroute_fast.evaluate.trials import predict_curve

    trial = make_trial(data, split, router.embedder.embed(list(data.texts)), seed)
    test = data.select(split.test, split.unseen)
    predicted = router.predict_loss(list(test.texts))
    ours = {"this router": deferral_curve(predicted, test.scores, test.costs)}
    return ours | {name: predict_curve(METHODS[name], trial) for name in PEERS}


def plot(curves: dict[str, DeferralCurve], folder: Path) -> str | None:
    """Plot the curves into ``demo.png`` of a folder; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        axes.plot(curve.cost, curve.quality, label=name, lw=2.5 if name == "this router" else 1.2)
    axes.set(
        title="Deferral curves on made-up data",
        xlabel="mean cost of a prompt (made-up USD per 1,000)",
        ylabel="mean quality of the answers",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "demo.png"
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return str(path)


def _text(figures: dict[str, Any], data: Dataset, router: Router, routed: int) -> str:
    seconds = figures["seconds"]
    weights = (0.0, 0.05)
    choices = [
        (text, *(router.route(text, weight).model for weight in weights)) for text in EXAMPLES
    ]
    results = [
        (name, f"{row['area']:.3f}", f"{row['qnc']:.0%}", f"{row['peak_quality']:.3f}")
        for name, row in figures["methods"].items()
    ]
    return "\n".join(
        [
            "All data here is MADE UP: prompts from templates, LLMs with drawn skills and prices.",
            "",
            f"fit    {seconds['fit']:6.2f} s  {figures['prompts']:,} prompts made, 60% to fit on, "
            f"outcomes of {figures['seen']} seen LLMs: {figures['clusters']} clusters",
            f"add    {seconds['add']:6.2f} s  {figures['added']} new LLMs from "
            f"{figures['labels_per_model']} labelled prompts, no refit",
            f"route  {seconds['route']:6.2f} s  {routed:,} prompts, "
            f"{seconds['route'] / routed * 1e6:.0f} us each",
            "",
            columns(("prompt", *(f"cost weight {w:g}" for w in weights)), choices),
            "",
            f"On the {routed:,} test prompts, one split, costs in {data.cost_unit}:",
            columns(("method", "area", "cost to match the best LLM", "peak quality"), results),
            "(area: mean quality over all budgets; 'oracle' knows every answer beforehand)",
            "",
            f"plot: {figures['plot'] or 'needs matplotlib'}    total {seconds['total']:.1f} s",
        ]
    )
