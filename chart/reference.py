"""Writes the table of values in README.md from the comments in values.yaml."""

import json
from pathlib import Path

import yaml

__all__ = ["table"]

HERE = Path(__file__).parent
MARK = "<!-- written by reference.py from values.yaml -->\n"


def table() -> str:
    """Return the table: each commented key, its default, its meaning."""
    values = yaml.safe_load((HERE / "values.yaml").read_text())
    rows, path, comment = ["| key | default | meaning |", "| --- | --- | --- |"], [""], ""
    for line in (HERE / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment = f"{comment} {text[1:].strip()}".strip()
        elif not text:
            comment = ""
        elif ":" in text:
            depth = (len(line) - len(line.lstrip())) // 2
            path[depth:] = [text.partition(":")[0]]
            if comment:
                default = values
                for key in path:
                    default = default[key]
                rows.append(f"| `{'.'.join(path)}` | `{json.dumps(default)}` | {comment} |")
            comment = ""
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    readme = HERE / "README.md"
    readme.write_text(readme.read_text().partition(MARK)[0] + MARK + "\n" + table())
