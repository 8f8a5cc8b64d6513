"""A plain SVG of throughput and latency by case."""

from html import escape
from pathlib import Path

from cases import throughput

LEFT, BAR, GAP, ROW = 190, 330, 60, 24
PALETTE = {"noop": "#9aa0a6", "memory": "#1a73e8", "redis": "#d93025", "limitador": "#f9ab00"}


def colour(case):
    return PALETTE.get(case.split()[0], "#5f6368")


def write(path, results):
    cases = list(results.reports)
    rates = {case: results.median(case, throughput) for case in cases}
    p50 = {case: results.median(case, lambda r: r["latency_us"]["p50"]) for case in cases}
    p99 = {case: results.median(case, lambda r: r["latency_us"]["p99"]) for case in cases}
    height = ROW * (len(cases) + 2)
    right = LEFT + BAR + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{right + BAR + GAP + 20}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="16" font-weight="bold">decisions per second</text>',
        f'<text x="{right}" y="16" font-weight="bold">latency at that rate: p50 (full) and p99 (pale), ms</text>',
    ]
    for line, case in enumerate(cases):
        y = ROW * (line + 1)
        rate = BAR * rates[case] / max(rates.values())
        middle, high = (BAR * latency[case] / max(p99.values()) for latency in (p50, p99))
        fill = colour(case)
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(case)}</text>',
            f'<rect x="{LEFT}" y="{y + 3}" width="{rate:.1f}" height="16" fill="{fill}"/>',
            f'<text x="{LEFT + rate + 4:.1f}" y="{y + 15}">{rates[case] / 1000:.0f} k</text>',
            f'<rect x="{right}" y="{y + 3}" width="{high:.1f}" height="16" fill="{fill}" opacity="0.3"/>',
            f'<rect x="{right}" y="{y + 3}" width="{middle:.1f}" height="16" fill="{fill}"/>',
            f'<text x="{right + high + 4:.1f}" y="{y + 15}">{p99[case] / 1000:.1f}</text>',
        ]
    parts.append("</svg>")
    Path(path).write_text("\n".join(parts) + "\n")
