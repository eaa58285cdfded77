"""Features to a map that says how good it is: PCA, neighbours, t-SNE, quality. No Ray.

What a stage does for one layer, each step a function of arrays, so that it can be one task or
many. ``blocks`` are functions without arguments that return ``(ids [n], features [n, D])`` of one
shard, or of a range of its rows where a shard has more than `BLOCK_BYTES`::

    # 1. principal components, over blocks; only map_blocks reads them
    pca: Pca = fit_pca(blocks, (N, D), PcaOptions(50, seed), map_blocks)
    write(pca_to_bytes(pca))               # pca.notes to the log, pca.left_out to the summary
    # 2. points: a task per block; without PCA gather(blocks, D) instead
    ids_i, points_i = project_block(block, pca, config.whiten)
    # 3. neighbours: one task builds the index, the others search a range of rows each
    index: Index = build_index(points, config.metric, seed)          # index.recall
    for rows in query_rows(len(points)):                             # tasks
        indices, distances = search_index(index, points, affinity_neighbours(config, N), rows)
        neighbours_table(ids, indices, distances, rows)              # schema NEIGHBOURS
    # 4. the map: one task; start is another layer's positions, or None
    found: Embedding = embed(points, config, seed, start, (indices, distances), labels, progress)
    # 5. how good it is: one task
    quality: MapQuality = judge_map(points, found.positions, metric=config.metric, seed=seed)
    trust = trust_of(indices, found.positions)                       # float32 [N]
    second: SecondMap = compare_seeds(points, found.positions, config, seed)   # .agreement [N]
    moved = displacements(found.positions, reference)                # against the first layer
    chance = displacements(second.positions, reference[second.sample])         # its control
    # 6. labels: again whenever a class is renamed, from the small files alone
    named = judge_labels(positions, labels, indices_of(ids, tables), plane, seed)
    figures = as_dict([quality, named], kl_divergence=..., neighbour_recall=index.recall)

``points`` is ``[N, K]`` float32 and lives in tasks, never in the driver; ``points[:, :2]`` is the
PCA plane that is a map's control. A layer's task needs `map_bytes` of memory.
"""

from cnnvis_ray.reduction.alignment import align, displacements
from cnnvis_ray.reduction.blocks import (
    BLOCK_BYTES,
    Block,
    Features,
    Ids,
    MapBlocks,
    Rows,
    gather,
    in_threads,
    in_turn,
)
from cnnvis_ray.reduction.neighbours import (
    NEIGHBOURS,
    Index,
    build_index,
    indices_of,
    nearest,
    neighbours_table,
    query_rows,
    search_index,
)
from cnnvis_ray.reduction.pca import (
    Pca,
    PcaOptions,
    as_scikit_learn,
    fit_pca,
    pca_from_bytes,
    pca_to_bytes,
    project,
    project_block,
)
from cnnvis_ray.reduction.quality import (
    MapQuality,
    SecondMap,
    as_dict,
    compare_seeds,
    judge_labels,
    judge_map,
    label_agreement,
    label_chance,
    trust_of,
)
from cnnvis_ray.reduction.resources import available_bytes
from cnnvis_ray.reduction.solvers import SOLVERS
from cnnvis_ray.reduction.tsne import (
    Embedding,
    LargeRecipe,
    affinity_neighbours,
    embed,
    map_bytes,
)

__all__ = [
    "BLOCK_BYTES",
    "NEIGHBOURS",
    "SOLVERS",
    "Block",
    "Embedding",
    "Features",
    "Ids",
    "Index",
    "LargeRecipe",
    "MapBlocks",
    "MapQuality",
    "Pca",
    "PcaOptions",
    "Rows",
    "SecondMap",
    "affinity_neighbours",
    "align",
    "as_dict",
    "as_scikit_learn",
    "available_bytes",
    "build_index",
    "compare_seeds",
    "displacements",
    "embed",
    "fit_pca",
    "gather",
    "in_threads",
    "in_turn",
    "indices_of",
    "judge_labels",
    "judge_map",
    "label_agreement",
    "label_chance",
    "map_bytes",
    "nearest",
    "neighbours_table",
    "pca_from_bytes",
    "pca_to_bytes",
    "project",
    "project_block",
    "query_rows",
    "search_index",
    "trust_of",
]
