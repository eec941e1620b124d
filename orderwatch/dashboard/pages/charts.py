"""Plots as inline SVG: no script, no style attribute, colours by class, and a title that says the same in words."""

from collections.abc import Sequence

from markupsafe import Markup

from db.reads.overview import Flow
from orderwatch.dashboard.i18n import PageLanguage

WIDTH, HEIGHT = 960, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 10, 22

_FRAME = Markup(
    '<figure><div class="wide"><svg class="plot" viewBox="0 0 {width} {height}" role="img"'
    ' aria-labelledby="plot-title">'
    '<title id="plot-title">{title}</title>'
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path class="hatch" d="M0 0V5"/></pattern></defs>{grid}{bars}{line}{hits}</svg></div>{legend}</figure>'
)
_RECT = Markup('<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>')
_HIT = Markup(
    '<rect class="hit" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{height}"><title>{said}</title></rect>'
)
_GRID = Markup(
    '<path class="grid" d="M{left} {y:.1f}H{right}"/><text x="{text}" y="{base:.1f}" text-anchor="end">{said}</text>'
)
_LABEL = Markup('<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{said}</text>')
_LEGEND = Markup(
    '<figcaption class="legend"><span><svg class="plot" viewBox="0 0 24 12" aria-hidden="true">'
    '<path class="came" d="M1 9V5H12V2H23"/></svg> {came}</span>'
    '<span><svg class="plot" viewBox="0 0 24 12" aria-hidden="true">'
    '<rect class="completed" width="24" height="12"/></svg> {completed}</span>'
    '<span><svg class="plot" viewBox="0 0 24 12" aria-hidden="true">'
    '<rect class="failed" x="1" y="1" width="22" height="10"/></svg> {failed}</span></figcaption>'
)


def flow_plot(flow: Sequence[Flow], t: PageLanguage) -> Markup:
    """Orders per minute: those that came as a line, those that ended as bars, the failed hatched on top."""
    top = ceiling(max((max(row.accepted, row.completed + row.failed) for row in flow), default=0))
    step = (WIDTH - _LEFT - _RIGHT) / max(len(flow), 1)
    scale = (HEIGHT - _TOP - _BOTTOM) / top
    floor = HEIGHT - _BOTTOM
    bars, hits, line = [], [], []
    for number, row in enumerate(flow):
        x = _LEFT + number * step
        done, lost = row.completed * scale, row.failed * scale
        if row.completed:
            bars.append(_RECT.format(kind="completed", x=x + 1, y=floor - done, width=step - 2, height=done))
        if row.failed:
            bars.append(_RECT.format(kind="failed", x=x + 1.5, y=floor - done - lost, width=step - 3, height=lost))
        line.append(f"V{floor - row.accepted * scale:.1f}H{x + step:.1f}")
        said = t(
            "{time} UTC: {accepted} accepted, {completed} completed, {failed} failed",
            time=row.minute.strftime("%H:%M"),
            accepted=t.number(row.accepted),
            completed=t.number(row.completed),
            failed=t.number(row.failed),
        )
        hits.append(_HIT.format(x=x, top=_TOP, width=step, height=floor - _TOP, said=said))
    return _FRAME.format(
        width=WIDTH,
        height=HEIGHT,
        title=_title(flow, t),
        grid=_grid(flow, top, scale, step, t),
        bars=Markup("").join(bars),
        line=Markup('<path class="came" d="M{x} {y}{moves}"/>').format(x=_LEFT, y=floor, moves="".join(line)),
        hits=Markup("").join(hits),
        legend=_LEGEND.format(came=t("accepted"), completed=t("completed"), failed=t("failed")),
    )


def ceiling(most: int) -> int:
    """The end of the scale: the next even 1, 2, 3, 4, 6 or 8 times a power of ten, at least 4."""
    size = 1
    while True:
        for digit in (1, 2, 3, 4, 6, 8):
            if digit * size >= max(most, 4) and digit * size % 2 == 0:
                return digit * size
        size *= 10


def _title(flow: Sequence[Flow], t: PageLanguage) -> str:
    return t(
        "In the last hour {accepted} orders were accepted, {completed} completed and {failed} failed",
        accepted=t.number(sum(row.accepted for row in flow)),
        completed=t.number(sum(row.completed for row in flow)),
        failed=t.number(sum(row.failed for row in flow)),
    )


def _grid(flow: Sequence[Flow], top: int, scale: float, step: float, t: PageLanguage) -> Markup:
    floor = HEIGHT - _BOTTOM
    lines = [
        _GRID.format(
            left=_LEFT,
            right=WIDTH - _RIGHT,
            y=floor - value * scale,
            base=floor - value * scale + 4,
            text=_LEFT - 6,
            said=t.number(value),
        )
        for value in (0, top // 2, top)
    ]
    for number in range(0, len(flow), 15):
        said = flow[number].minute.strftime("%H:%M")
        lines.append(_LABEL.format(x=_LEFT + number * step, y=HEIGHT - 6, anchor="start", said=said))
    if flow:
        lines.append(_LABEL.format(x=WIDTH - _RIGHT, y=HEIGHT - 6, anchor="end", said=t("now")))
    return Markup("").join(lines)
