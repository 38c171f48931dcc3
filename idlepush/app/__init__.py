"""The composition root: build everything once, wire it, run it until it is told to stop.

settings ─▶ store ─▶ fleet: one supervisor for each account ─▶ observations ─▶ health metrics logs alerts systemd
              ├────▶ standing: what `status` shows when nothing runs                │
              └────▶ the HTTP interface ◀───────────────────────────────────────────┘
"""
