"""How large an install is: packages and megabytes of `pip install curate`, and of each extra.

    python scripts/install_size.py                # the base
    python scripts/install_size.py clip index     # the base, and with each of these extras

Builds the wheel, installs it into a fresh environment, counts, and checks that every command that the base is
for runs there: a small table goes through ingest, filter, query and diff.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BAR_MB = 500

CONFIG = """
workspace: {work}
ingest: {{sources: [{{paths: [{table}]}}]}}
download: null
score: {{scorers: {{text: {{type: text}}}}}}
filter:
  experiments:
    long: {{rules: {{words: text_words >= 3}}}}
    short: {{rules: {{words: text_words < 5}}}}
export: {{tars: false, experiments: []}}
report: {{experiments: []}}
index: {{experiments: []}}
"""


def environment(folder: Path, wheel: Path, extra: str) -> Path:
    """A fresh environment with the wheel and an extra in it; its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    what = f"{wheel}[{extra}]" if extra else str(wheel)
    command = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), what]
    subprocess.run(command, check=True)
    return python


def size_of(python: Path) -> tuple[int, float]:
    """Packages without pip's own, and megabytes of site-packages."""
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], stdout=subprocess.PIPE, check=True
    )
    names = {package["name"].lower() for package in json.loads(listed.stdout)} - {"pip", "setuptools"}
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    own = [
        p
        for p in site.rglob("*")
        if p.is_file() and not p.relative_to(site).parts[0].startswith(("pip", "setuptools"))
    ]
    return len(names), sum(path.stat().st_size for path in own) / 1e6


def try_it(python: Path, folder: Path) -> None:
    """Run what the base is for; raises when a command fails, or an extra is missing without a word."""
    captions = ["a dog in the snow", "two red bicycles", "cat", "sunset over the sea near a town"]
    table = folder / "pairs.csv"
    table.write_text("url,text\n" + "".join(f"http://e.org/{i}.jpg,{t}\n" for i, t in enumerate(captions)))
    config, work = folder / "c.yaml", folder / "work"
    config.write_text(CONFIG.format(work=work, table=table))
    curate = [str(python), "-m", "curate.cli"]
    for command in (
        ["ingest", config],
        ["score", config],
        ["filter", config],
        ["query", "SELECT count(*) FROM samples", "-w", work],
        ["diff", "long", "short", "-w", work, "--html", folder / "diff.html"],
        ["status", "-w", work],
    ):
        subprocess.run([*curate, *map(str, command)], check=True, capture_output=True, cwd=folder)
    config.write_text(CONFIG.format(work=work, table=table).replace("download: null", "download: {}"))
    done = subprocess.run([*curate, "download", str(config)], capture_output=True, text=True, cwd=folder)
    if done.returncode != 2 or "pip install 'curate[download]'" not in done.stderr:
        raise SystemExit(f"a missing extra is not said in one line:\n{done.stderr}")


def main() -> None:
    """Print a line for each install, and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", help="measure the base with each of these as well")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
        subprocess.run(build, check=True)
        (wheel,) = folder.glob("curate-*.whl")
        for extra in ("", *options.extras):
            python = environment(folder / f"env-{extra or 'base'}", wheel, extra)
            packages, megabytes = size_of(python)
            found[extra or "base"] = {"packages": packages, "mb": round(megabytes)}
            print(f"{extra or 'base':<12} {packages:>4} packages {megabytes:>8,.0f} MB", flush=True)
            if not extra:
                try_it(python, folder)
    ok = found["base"]["mb"] < BAR_MB
    line = {
        "bench": "install",
        "ours": found,
        "peer": None,
        "ratio": None,
        "floor": None,
        "bar": BAR_MB,
        "ok": ok,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
