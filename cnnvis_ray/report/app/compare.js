// Two layers side by side: one selection, and how far each image moved between them.
"use strict";

app.pages.compare = { title: "Compare", when: () => app.run.layers.filter((layer) => layer.map).length > 1, first: () => ["compare", ...app.run.layers.filter((layer) => layer.map).filter((_, i, all) => i === 0 || i === all.length - 1).map((layer) => layer.name)], show: showCompare };

async function showCompare(names, query, main) {
  const mapped = app.run.layers.filter((layer) => layer.map), layers = names.slice(0, 2).map(layerOf);
  if (layers.length < 2 || layers.some((layer) => !layer || !layer.map)) return missing(main, `There are no maps of ${names.join(" and ")}.`);
  const views = layers.map((layer) => new MapView(`Map by ${layer.name}`));
  const legend = h("div", { class: "legend wide" }), picked = h("div", { class: "picked", "aria-live": "polite" });
  const pick = (side) => choice(side ? "and" : "Layer", mapped.map((layer) => [layer.name, layer.name]), names[side], (value) => { location.hash = address("compare", ...(side ? [names[0], value] : [value, names[1]])); });
  const colours = [["moved", "how far they moved"], app.run.labelled && ["label", "class"], app.run.predicted && ["prediction", "prediction"]].filter(Boolean);
  const recolour = async (kind) => {
    if (kind !== "moved") return Promise.all(views.map((view, i) => colourBy(view, kind, i ? h("div") : legend)));
    legend.replaceChildren();
    views.forEach((view) => { view.data.frames = true; });
    displace(...views);
    add(legend, [h("p", { class: "quiet" }, "Bright points moved most, after the two maps were turned, mirrored and scaled onto each other.")]);
    return views.forEach((view) => view.draw());
  };
  add(main, [h("h1", {}, name(names[0]), " and ", name(names[1])), h("div", { class: "row" }, pick(0), pick(1), choice("Colour by", colours, "moved", recolour),
    toggle("Lasso", false, (on) => views.forEach((view) => { view.lasso = on; view.box.classList.toggle("lasso", on); }))), h("div", { class: "two" }, views.map((view, i) => h("figure", {}, view.box, h("figcaption", {}, name(names[i]))))), legend, picked]);
  leave(() => views.forEach((view) => view.watch.disconnect()));
  await Promise.all(views.map((view, i) => view.open(layers[i])));
  const reselect = (images) => {
    select(images);
    for (const view of views) {
      paintSelection(view.data);
      view.draw();
    }
    showSelection(picked, { reselect });
  };
  for (const view of views) {
    view.selected = view.reselect = reselect;
    view.data.words = false;
    view.clicked = (image) => {
      app.focus = image;
      views.forEach((other) => other.draw());
      picked.replaceChildren();
      if (image === null) return reselect(null);
      imageOf(image).then((found) => add(picked, [h("a", { href: imageAddress(image, found.key), class: "pair" }, whole(found, 128), h("span", {}, name(found.key, 80)))]));
    };
    hovering(view);
  }
  app.view = views[0];
  await recolour("moved");
  showSelection(picked, { reselect });
}

// The turn, mirror and scale that put one map onto the other best (Procrustes in the plane).
function displace(one, two) {
  const pairs = [];
  for (let point = 0; point < one.data.count; point++) {
    const other = two.pointOf(one.imageOf(point));
    if (other >= 0) pairs.push([point, other]);
  }
  const mean = (data, side) => [0, 1].map((axis) => pairs.reduce((sum, pair) => sum + data.xy[2 * pair[side] + axis], 0) / Math.max(1, pairs.length));
  const a0 = mean(one.data, 0), b0 = mean(two.data, 1);
  let size = 0, turn = [0, 0], flip = [0, 0];
  const at = ([p, q]) => [one.data.xy[2 * p] - a0[0], one.data.xy[2 * p + 1] - a0[1], two.data.xy[2 * q] - b0[0], two.data.xy[2 * q + 1] - b0[1]];
  for (const pair of pairs) {
    const [ax, ay, bx, by] = at(pair);
    size += ax * ax + ay * ay;
    turn = [turn[0] + ax * bx + ay * by, turn[1] + ax * by - ay * bx];
    flip = [flip[0] + ax * bx - ay * by, flip[1] + ax * by + ay * bx];
  }
  const mirrored = Math.hypot(...flip) > Math.hypot(...turn), [c, s] = (mirrored ? flip : turn).map((value) => value / (size || 1));
  const moved = pairs.map((pair) => {
    const [ax, y, bx, by] = at(pair), ay = mirrored ? -y : y;
    return Math.hypot(bx - (c * ax - s * ay), by - (s * ax + c * ay));
  });
  const sorted = Float64Array.from(moved).sort(), high = sorted[Math.floor(0.98 * (sorted.length - 1))] || 1;
  const colours = [one, two].map((view) => new Uint8Array(view.data.count).fill(255));
  pairs.forEach((pair, i) => { for (const side of [0, 1]) colours[side][pair[side]] = Math.min(254, (254 * moved[i]) / high); });
  paint(one.data, colours[0], "number");
  paint(two.data, colours[1], "number");
}
