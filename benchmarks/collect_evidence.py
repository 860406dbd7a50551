"""What a measurement on an accelerator left behind, as a folder to be committed: the small files of each run, and what else there was.

    python benchmarks/collect_evidence.py FOLDER [--to docs/evidence]

FOLDER is that of BEDSIDE_EVIDENCE (tests/hardware/test_gpu.py): `figures.jsonl`, and runs under `runs/`. Makes `<date>-<gpu>/` with a
README (figures, host, every file of every run with its SHA-256) and copies of what is smaller than 512 KiB; telemetry is packed with gzip.
What was left out is named too, so that the copy can be told from the whole.
"""

import argparse
import gzip
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

LARGEST = 512 * 1024
LEFT_OUT = ("report.html", "worker.log", "job.json", "lock")
"""The page is made again from the rest, a log may hold prompts."""


def collect(folder: Path, to: Path) -> Path:
    runs = sorted(p for p in (folder / "runs").glob("*") if (p / "manifest.json").exists())
    if not runs:
        sys.exit(f"{folder}: no run under runs/; give the folder that BEDSIDE_EVIDENCE named")
    manifest = json.loads((runs[0] / "manifest.json").read_text())
    made = to / f"{manifest['created_utc'][:10]}-{slug(manifest)}"
    made.mkdir(parents=True, exist_ok=True)
    figures = folder / "figures.jsonl"
    lines = [f"# {made.name}", "", *described(manifest), *tabulated(figures)]
    for run in runs:
        lines += ["", f"## {run.name}", "", "| file | bytes | SHA-256 | here |", "|---|---|---|---|"]
        for file in sorted(p for p in run.rglob("*") if p.is_file()):
            lines.append(kept(file, file.relative_to(run.parent), made))
    (made / "README.md").write_text("\n".join(lines) + "\n")
    return made


def slug(manifest: dict[str, Any]) -> str:
    gpus = manifest["host"].get("gpus") or []
    name = f"{len(gpus)}x-{gpus[0]['name']}" if len(gpus) > 1 else gpus[0]["name"] if gpus else "no-gpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-")


def described(manifest: dict[str, Any]) -> list[str]:
    host = manifest["host"]
    drivers = ", ".join(f"{name} {version}" for name, version in sorted(host.get("drivers", {}).items()))
    gpus = ", ".join(g["name"] for g in host.get("gpus") or ()) or "none"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest["versions"].items()))
    return [
        f"Source {manifest['source_commit'] or 'unknown'}. Accelerators: {gpus}; drivers: {drivers or 'none'}; "
        f"kernel {host.get('kernel')}; container: {host.get('container') or 'none'}. {versions}.",
    ]


def tabulated(figures: Path) -> list[str]:
    if not figures.exists():
        return []
    told = [json.loads(line) for line in figures.read_text().splitlines()]
    last = {f["what"]: f for f in told}
    return ["", "| figure | value | unit |", "|---|---|---|"] + [
        f"| {f['what']} | {f['value']:.5g} | {f['unit']} |" for f in last.values()
    ]


def kept(file: Path, place: Path, made: Path) -> str:
    """Copy one file, or not; its line of the table."""
    data = file.read_bytes()
    row = f"| {place} | {len(data)} | {hashlib.sha256(data).hexdigest()} |"
    target = made / place
    if file.name in LEFT_OUT:
        return f"{row} no |"
    if file.name == "telemetry.jsonl":
        data, target = gzip.compress(data, mtime=0), target.with_name("telemetry.jsonl.gz")
    if len(data) > LARGEST:
        return f"{row} no |"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return f"{row} {'packed' if target.name.endswith('.gz') else 'yes'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a folder of evidence.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "docs/evidence")
    wish = parser.parse_args()
    print(collect(wish.folder, wish.to))


if __name__ == "__main__":
    main()
