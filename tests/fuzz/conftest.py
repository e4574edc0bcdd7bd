"""The table of what was tried, below the results of the tests."""


def pytest_terminal_summary(terminalreporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows = [
        value
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "fuzz"
    ]
    if not rows:
        return
    columns = [name for name in rows[0] if name != "kind"]
    rows.append({"kind": "all", **{name: sum(row[name] for row in rows) for name in columns}})
    terminalreporter.section("damaged inputs")
    terminalreporter.write_line(f"{'kind':16}" + "".join(f"{name:>17}" for name in columns))
    for row in rows:
        terminalreporter.write_line(f"{row['kind']:16}" + "".join(f"{row[name]:>17}" for name in columns))
