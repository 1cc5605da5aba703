"""Bugs of src/seeded.rs, and the cases that must fail on a server that has them."""

# Bug: cases. One that may have any number of nodes is run with one.
BROKEN = {
    # Configuration.
    "content-changed": ["unicode", "200k", "1m", "9m"],
    "remove-ignored": ["basics", "removal"],
    "cas-ignored": ["cas"],
    "gray-is-formal": ["beta", "tag"],
    "listen-blind": ["between"],
    "clients-unasked": ["held"],
    # Both.
    "never-told": ["listen", "created", "burst", "3000", "10000", "restart", "stop", "kill", "rolling",
                   "subscribe", "disabled", "udp", "n-restart", "n-kill", "n-rolling"],
    "public-apart": ["namespaces", "groups"],
    "fuzzy-never-told": ["fuzzy", "watch"],
    # Naming.
    "words-lost": ["register", "batch", "select"],
    "not-deregistered": ["register", "subscribe", "watch", "persistent"],
    "batch-adds": ["batch"],
    "redo-changes": ["idle"],
    "redo-ignored": ["register", "n-kill"],
    "pushed-empty": ["batch", "subscribe", "gone", "n-kill", "n-rolling"],
    "dead-stay": ["select", "gone", "owners", "beats", "n-both"],
    "one-takes-all": ["owners"],
    "beats-ignored": ["gone", "owners", "beats"],
    "disabled-shown": ["disabled"],
    "clusters-ignored": ["clusters"],
    "groups-mixed": ["groups"],
    "pages-ignored": ["services"],
    "persistent-forgotten": ["persistent"],
    "empty-at-once": ["n-restart", "n-kill", "n-rolling"],
    "no-grace": ["n-both"],
}

# Bug and case, and the SDKs that get through all the same: those with a quirk, or by how they speak.
POLLS = ("http",)
BEATS_NOT = ("grpc",)
# What they are not told they ask for themselves within the time that their reconnecting takes.
IN_TIME = (*POLLS, "again")
THROUGH = {
    # They poll, and a poll compares.
    ("listen-blind", "between"): POLLS,
    ("never-told", "created"): ("compares",),
    ("never-told", "subscribe"): POLLS,
    ("never-told", "disabled"): POLLS,
    ("never-told", "n-restart"): IN_TIME,
    ("never-told", "n-kill"): IN_TIME,
    ("never-told", "n-rolling"): (*IN_TIME, "redo"),
    # A node that beats reach writes what it hears.
    ("redo-ignored", "n-kill"): POLLS,
    ("pushed-empty", "subscribe"): POLLS,
    ("pushed-empty", "gone"): POLLS,
    ("pushed-empty", "n-kill"): POLLS,
    # It subscribes again 30 s after it reconnected and has the answer then.
    ("pushed-empty", "n-rolling"): (*POLLS, "redo"),
    ("one-takes-all", "owners"): POLLS,
    # What beats is kept by the other nodes for its own time.
    ("no-grace", "n-both"): POLLS,
    ("beats-ignored", "gone"): BEATS_NOT,
    ("beats-ignored", "owners"): BEATS_NOT,
    ("beats-ignored", "beats"): BEATS_NOT,
}


def gets_through(bug, case, sdk):
    return not {*sdk.quirks, "http" if sdk.http else "grpc"}.isdisjoint(THROUGH.get((bug, case), ()))
