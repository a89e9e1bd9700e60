#!/usr/bin/env python3
"""docs/schema.md from the comments of services/state-manager/migrations/*.sql. With --check: fails when it is not up to date."""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
target = root / "docs/schema.md"
out = ["# The database", "",
       "Made from `services/state-manager/migrations` by `tools/schema_doc.py`; a test holds that it is up to date. The same tables stand in SQLite",
       "(`<data-dir>/tutti.db`) and in PostgreSQL. They are for reading, by SQL and by Grafana: what writes is the state-manager alone.", "",
       "Times are microseconds since 1970-01-01 UTC, or real times where a view says so; money is nano-units (10^-9) of a currency.",
       "A *cell* is user data as the state-manager stores it: perhaps compressed, encrypted, or the hash of a row of `payloads`. `tutti` shows",
       "what is in it (`tutti runs get`, `-o json`).", ""]
missing = []
# A view that a later migration makes anew is described there.
made_anew = {}
for path in sorted((root / "services/state-manager/migrations").glob("*.sql")):
    for view in re.findall(r"^DROP VIEW (\w+);", path.read_text(encoding="utf-8"), re.M):
        made_anew[view] = path
for path in sorted((root / "services/state-manager/migrations").glob("*.sql")):
    text = path.read_text(encoding="utf-8")
    number = path.stem.split("_")[0]
    if number == "0001":
        continue
    lines = text.split("\n")
    title = re.match(r"-- \d+: (.*)", lines[0]).group(1).rstrip(".")
    out += [f"## {title[0].upper()}{title[1:]} (migration {int(number)})", ""]
    for about in re.findall(r"^-- note: ((?:.*\n)(?:-- (?!table |view |column ).*\n)*)", text, re.M):
        out += [about.rstrip().replace("\n-- ", "\n"), ""]
    i = 0
    section = "both"
    while i < len(lines):
        if lines[i].startswith("--@"):
            section = lines[i][3:]
        note = re.match(r"-- (table|view) (\w+): (.*)", lines[i])
        if not note:
            i += 1
            continue
        kind, name, about = note.groups()
        if kind == "view" and made_anew.get(name, path) != path:
            i += 1
            continue
        out += [f"### {kind} `{name}`", "", about[0].upper() + about[1:], ""]
        i += 1
        if kind == "view":
            body = ""
            while not body.rstrip().endswith(";"):
                body += lines[i] + "\n"
                i += 1
            out += ["```sql", body.rstrip(), "```", ""]
            continue
        out += ["| Column | Type | Meaning |", "|---|---|---|"]
        seen = set()
        while not lines[i].startswith(")"):
            column = re.match(r"  (\w+) (.*?),?  -- (.*)$", lines[i])
            if column and column.group(1) not in seen:
                seen.add(column.group(1))
                type_ = re.sub(r" (NOT NULL|PRIMARY KEY|DEFAULT .*|AUTOINCREMENT|GENERATED .*)", "", column.group(2))
                out.append(f"| `{column.group(1)}` | {type_} | {column.group(3)} |")
            elif re.match(r"  [a-z_]+ [A-Z]", lines[i]) and not column:
                missing.append(f"{path.name}: {name}: a column without a comment: {lines[i].strip()}")
            key = re.match(r"  PRIMARY KEY \((.*)\)", lines[i])
            if key:
                out.append(f"| | | Primary key: {key.group(1)} |")
            i += 1
        out.append("")
    added = re.findall(r"^-- column (\w+)\.(\w+): (.*)$", text, re.M)
    for table in dict.fromkeys(name for name, _, _ in added):
        out += [f"### more columns of `{table}`", "", "| Column | Meaning |", "|---|---|"]
        out += [f"| `{column}` | {about} |" for name, column, about in added if name == table]
        out.append("")
    for table, column in re.findall(r"ALTER TABLE (\w+) ADD COLUMN (\w+)", text):
        if (table, column) not in {(name, said) for name, said, _ in added}:
            missing.append(f"{path.name}: {table}: a column without a comment: {column}")
    indexes = re.findall(r"CREATE (?:UNIQUE )?INDEX (\w+) ON (\w+)", text)
    if indexes:
        out += ["Indexes: " + ", ".join(f"`{index}` on {table}" for index, table in indexes) + ".", ""]
document = "\n".join(out).rstrip() + "\n"
if missing:
    sys.exit("\n".join(missing))
if "--check" in sys.argv:
    if not target.exists() or target.read_text(encoding="utf-8") != document:
        sys.exit("docs/schema.md is not up to date: run tools/schema_doc.py")
    print("docs/schema.md is up to date")
else:
    target.write_text(document, encoding="utf-8")
