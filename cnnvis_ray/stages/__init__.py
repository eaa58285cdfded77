"""The verbs: a module per stage, which decides what is due, refuses, and only then works.

A stage is a module with ``decide(job) -> Work``. It reads and refuses and writes nothing; its
work is done after every stage of the verb has decided. To add one: the module, and its line here.
`run` goes through those of its stages that belong to the verbs which the key ``stages`` names.
"""

VERBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "run": (
        "all stages that the key stages names, as far as they are due",
        ("extract", "reduce", "mosaic", "maximize", "catalogue", "explain", "report"),
    ),
    "extract": (
        "images to features, statistics, predictions and thumbnails",
        ("extract", "catalogue"),
    ),
    "maximize": ("a picture of what each channel responds to", ("maximize", "catalogue")),
    "explain": ("heat maps, crops and cards: where the network looks", ("explain",)),
    "reduce": ("features to positions on a map: PCA and t-SNE", ("reduce",)),
    "mosaic": ("maps to pictures: scatter and grid", ("mosaic",)),
    "report": ("the explorer: pages of the whole run that open by double click", ("report",)),
}
"""Each verb that computes: its help, and the stages that it goes through, in order."""
