"""Every colour of the app and of the study's pages, named once: (by day, by night).

Text on its background has a contrast of at least 4.5 in both.
"""

from __future__ import annotations

PAPER = ("#faf7f1", "#151311")
CARD = ("#ffffff", "#1f1c19")
RAISED = ("#f3eee5", "#2a2622")
INK = ("#201b15", "#f5efe6")
MUTED = ("#6a6055", "#b0a597")
EDGE = ("#8f8476", "#776d62")  # of what can be filled in or chosen: 3 to 1 on PAPER and CARD
LINE = ("#e6dfd3", "#37312b")
ACCENT = ("#bf3f0c", "#ff9a62")
ACCENT_STRONG = ("#9d3208", "#ffb185")
ON_ACCENT = ("#ffffff", "#1c0f06")
WASH = ("#fdeee4", "#3a2417")
