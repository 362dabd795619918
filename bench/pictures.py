"""Draws a picture of each scenario from `latest.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import NAMES

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "bench"

_OURS, _OTHERS, _SECOND, _THIRD = "#0b5fff", "#9aa5b1", "#f59f00", "#c92a2a"
_WIDTH_INCHES, _ROW_INCHES = 7.5, 0.42


def draw(found: Mapping[str, Any], folder: Path = FOLDER) -> list[Path]:
    """Draw the measurements. Returns the files.

    Raises:
        ModuleNotFoundError: matplotlib is not installed (requirements/bench.txt).
    """
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "notifier", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    pictures: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
        "throughput": lambda one: _peers(one["throughput"], "Mails a second"),
        "with-100ms-server": lambda one: _peers(
            one["with_100ms_server"], "Mails a second, the server takes 100 ms for each"
        ),
        "with-100ms-server-sized": lambda one: _peers(
            one["with_100ms_server_sized"], "The same, everybody with as many connections as that needs"
        ),
        "workers": lambda one: _bars(one["workers"], "Mails a second, by number of workers"),
        "sms": lambda one: _bars(one["sms"], "SMS a second, Twilio takes 150 ms for each"),
        "latency": _latency,
        "growth": _growth,
        "audit": _audit,
        "memory": lambda one: _bars(
            one["memory_mb"].get("notifier", {}), "Memory of each process at full load, MB"
        ),
        "steady": _steady,
        "http": _http,
        "client": _client,
        "model": _model,
    }
    done = []
    for name, make in pictures.items():
        figure = make(found)
        if figure is not None:
            path = folder / f"{name}.svg"
            figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
            _close(figure)
            done.append(path)
    return done


def _peers(rates: Mapping[str, float], title: str) -> Any:
    named = {name: rates[key] for key, name in NAMES.items() if key in rates}
    return _bars(named, title)


def _bars(values: Mapping[str, float], title: str) -> Any:
    if not values:
        return None
    figure, axes = _axes(len(values), title)
    colours = [_OURS if name == "notifier" or "notifier" not in values else _OTHERS for name in values]
    bars = axes.barh(list(values), list(values.values()), color=colours, height=0.6)
    axes.bar_label(bars, labels=[_number(value) for value in values.values()], padding=4)
    _finish(axes, max(values.values()))
    return figure


def _latency(found: Mapping[str, Any]) -> Any:
    words = {"idle": "idle", "half_load": "half load", "urgent_under_bulk": "urgent, while bulk waits"}
    measured = {name: found["latency_ms"][key] for key, name in words.items() if key in found["latency_ms"]}
    series = {rank: [one.get(rank, 0.0) for one in measured.values()] for rank in ("p50", "p95", "p99")}
    return _groups(list(measured), series, "Published until accepted by the mail server, ms")


def _growth(found: Mapping[str, Any]) -> Any:
    sizes = found["growth"]
    rates = {f"{_number(float(rows))} notifications": one["rate"] for rows, one in sizes.items()}
    return _bars(rates, "Mails a second, by what is already in the database")


def _audit(found: Mapping[str, Any]) -> Any:
    searches = found["audit_ms"]
    names = [name.replace("_", " ") for name in searches]
    series = {rank: [one.get(rank, 0.0) for one in searches.values()] for rank in ("p50", "p95")}
    return _groups(names, series, "Auditors' searches with the most notifications, ms", logarithmic=True)


def _steady(found: Mapping[str, Any]) -> Any:
    if not found["steady"]:
        return None
    figure, axes = _axes(8, f"Memory at {found['steady']['rate']} mails a second, MB, by seconds")
    for name, points in found["steady"]["series"]["memory_mb"].items():
        axes.plot([at for at, _ in points], [size for _, size in points], label=name)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _http(found: Mapping[str, Any]) -> Any:
    http = found.get("http")
    if not http:
        return None
    counts = [key for key in http["celery_delay"] if key.isdecimal()]
    names = [f"{count} connection{'s' * (count != '1')}" for count in counts]
    series = {
        words: [http[name][count]["rate"] for count in counts]
        for name, words in (("notifier", "notifier"), ("celery_delay", "Celery's delay()"))
    }
    return _groups(names, series, "Messages a second over HTTP, one process each")


def _client(found: Mapping[str, Any]) -> Any:
    client = found.get("client")
    if not client:
        return None
    threads = {"1": "1 thread", "16": "16 threads"}
    series = {
        words: [client[f"{name}_{count}"]["rate"] for count in threads]
        for name, words in (("client", "notifier.Client"), ("celery_delay", "Celery's delay()"))
    }
    return _groups(list(threads.values()), series, "Messages a second from one producing process")


def _model(found: Mapping[str, Any]) -> Any:
    if not found.get("model"):
        return None
    rows = found["model"]["checks"]
    names = [f"{row['cores']} cores, {row['workers']} workers" for row in rows]
    series = {word: [row[word] for row in rows] for word in ("measured", "predicted")}
    return _groups(names, series, "Mails a second: the model beside measurements")


def _groups(
    names: Sequence[str], series: Mapping[str, Sequence[float]], title: str, *, logarithmic: bool = False
) -> Any:
    if not names:
        return None
    figure, axes = _axes(len(names) * len(series) * 0.7, title)
    height = 0.8 / len(series)
    for number, ((label, values), colour) in enumerate(
        zip(series.items(), (_OURS, _SECOND, _THIRD), strict=False)
    ):
        places = [place + number * height for place in range(len(names))]
        bars = axes.barh(places, values, height=height, color=colour, label=label)
        axes.bar_label(bars, labels=[_number(value) for value in values], padding=4, fontsize=7)
    axes.set_yticks([place + height * (len(series) - 1) / 2 for place in range(len(names))], names)
    # Beside the bars, because no place among them is certain to be free.
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    if logarithmic:
        axes.set_xscale("log")
    _finish(axes, max(value for values in series.values() for value in values))
    return figure


def _axes(rows: float, title: str) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(_WIDTH_INCHES, 0.8 + _ROW_INCHES * rows))
    axes.set_title(title, loc="left", fontsize=10)
    return figure, axes


def _finish(axes: Any, most: float) -> None:
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_xscale() == "linear":
        # Room for the figure beside the longest bar.
        axes.set_xlim(0, most * 1.15)


def _close(figure: Any) -> None:
    import matplotlib.pyplot as plt

    plt.close(figure)


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"
