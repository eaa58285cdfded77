// The map of a layer: every image where its features put it.
"use strict";

app.pages.map = { title: "Map", when: () => app.run.layers.some((layer) => layer.map), first: () => ["map", [...app.run.layers].reverse().find((layer) => layer.map).name], show: showMap };

async function showMap([layerName], query, main) {
  const layer = layerOf(layerName);
  if (!layer || !layer.map) return missing(main, `There is no map of ${layerName}.`);
  const view = new MapView(`Map of ${app.run.images} images by ${layerName}`);
  const side = h("aside", { class: "side", "aria-label": "Map settings and selection" }), picked = h("div", { class: "picked", "aria-live": "polite" });
  const mapped = app.run.layers.filter((found) => found.map);
  const title = h("h1", {}, "Map of ", name(layerName));
  const tools = h("div", { class: "tools" });
  main.append(h("div", { class: "mappage" }, h("div", { class: "stage" }, view.box, tools), add(side, [title])));
  leave(() => view.watch.disconnect());
  if (query.get("image")) app.focus = Number(query.get("image"));
  await view.open(layer);
  const [x, y, zoom] = (query.get("view") || "").split(",").map(Number);
  if (zoom > 0) view.move(x, y, zoom);
  else if (query.get("image")) {
    const point = view.pointOf(app.focus);
    if (point >= 0) view.move(view.data.xy[2 * point], view.data.xy[2 * point + 1], 5);
  }
  const state = { colour: query.get("colour") || app.colour || (app.run.labelled ? "label" : app.run.predicted ? "prediction" : "plain") };
  const legend = h("div", { class: "legend" });
  const remember = () => {
    clearTimeout(view.timer);
    view.timer = setTimeout(() => {
      if (!view.box.isConnected) return;
      const at = [Math.round(view.view.x), Math.round(view.view.y), view.view.zoom.toPrecision(4)].join(",");
      history.replaceState(null, "", `${address("map", layerName)}?colour=${encodeURIComponent(state.colour)}&view=${at}`);
    }, 250);
  };
  view.moved = remember;
  const recolour = async (kind) => {
    app.colour = state.colour = kind;
    await colourBy(view, kind, legend);
    remember();
  };
  const reselect = (images) => {
    select(images);
    paintSelection(view.data);
    view.draw();
    showSelection(picked, view);
  };
  view.selected = reselect;
  view.reselect = reselect;
  view.clicked = (image) => {
    if (image === null) return reselect(null);
    app.focus = image;
    view.draw();
    if (app.selection && !app.selection[image]) return;
    imageOf(image).then((found) => { location.hash = imageAddress(image, found.key); });
  };
  hovering(view);
  const colours = [["plain", "number of images"], app.run.labelled && ["label", "class"], app.run.predicted && ["prediction", "prediction"], ...Object.keys(view.data.columns).map((column) => [column, column])].filter(Boolean);
  if (!colours.some(([key]) => key === state.colour)) state.colour = colours[0][0];
  add(side, [
    mapped.length > 1 && choice("Layer", mapped.map((found) => [found.name, found.name]), layerName, (value) => { location.hash = address("map", value) + `?colour=${encodeURIComponent(state.colour)}`; }),
    choice("Colour by", colours, state.colour, recolour), legend, picked,
    view.data.regions.length > 0 && h("details", { open: !app.selection && innerWidth > 800 }, h("summary", {}, "Regions"), regionList(view)),
    layerQuality(layer),
    app.run.total > app.run.images && h("p", { class: "quiet" }, `${show(app.run.images)} of ${show(app.run.total)} images are shown, evenly by class.`),
  ]);
  add(tools, [
    toggle("Lasso", false, (on) => { view.lasso = on; view.box.classList.toggle("lasso", on); }),
    toggle("Pictures", true, (on) => { view.data.pictures = on; view.draw(); }),
    toggle("Words", true, (on) => { view.data.words = on; view.draw(); }),
    h("button", { type: "button", "aria-label": "Zoom in", onclick: () => view.zoomBy(1.6) }, "+"),
    h("button", { type: "button", "aria-label": "Zoom out", onclick: () => view.zoomBy(1 / 1.6) }, "−"),
    h("button", { type: "button", onclick: () => view.move(32768, 32768, 1) }, "Whole map"),
    h("button", { type: "button", title: "Points and words as PNG: a browser does not let a page save pictures that were opened from disk", onclick: () => savePoints(view) }, "Save points as PNG"),
  ]);
  app.view = view;
  await colourBy(view, state.colour, legend);
  showSelection(picked, view);
}

function toggle(text, on, change) {
  const button = h("button", { type: "button", "aria-pressed": String(on), onclick: () => {
    on = !on;
    button.setAttribute("aria-pressed", String(on));
    change(on);
  } }, text);
  return button;
}

async function colourBy(view, kind, legend) {
  const data = view.data;
  const column = kind === "label" || kind === "prediction" ? await columnOf(kind) : null;
  legend.replaceChildren();
  data.frames = Boolean(column);
  if (column) {
    const none = nothing(), classOf = (point) => column[view.imageOf(point)];
    paint(data, Uint8Array.from({ length: data.count }, (_, point) => (classOf(point) === none ? 255 : classOf(point) % 255)), "class");
    const counts = new Map();
    for (let point = 0; point < data.count; point++) counts.set(classOf(point), (counts.get(classOf(point)) || 0) + 1);
    counts.delete(none);
    const most = [...counts].sort((a, b) => b[1] - a[1]);
    add(legend, [h("ul", {}, most.slice(0, 10).map(([index, count]) => h("li", {}, h("span", { class: "dot", style: { background: css(data.palette[index % 255]) } }),
      link(["class", app.run.classes[index]], name(say(app.run.classes[index]), 40)), h("span", { class: "quiet" }, " " + show(count))))),
      most.length > 10 && h("p", { class: "quiet" }, `and ${show(most.length - 10)} more`)]);
  } else if (data.columns[kind]) {
    const [low, high, bytes] = data.columns[kind];
    paint(data, unpack(bytes, Uint8Array), "number");
    const canvas = h("canvas", { width: 200, height: 1, class: "ramp", role: "img", "aria-label": `${kind} from ${show(low)} to ${show(high)}` }), context = canvas.getContext("2d");
    for (let i = 0; i < 200; i++) { context.fillStyle = css(ramp(i / 199, VIRIDIS)); context.fillRect(i, 0, 1, 1); }
    add(legend, [canvas, h("p", { class: "ends" }, h("span", {}, show(low)), h("span", {}, show(high)))]);
  } else paint(data, new Uint8Array(data.count), "plain");
  view.draw();
}

function regionList(view) {
  const rows = view.data.regions.filter((row) => row[0] === 1).sort((a, b) => b[3] - a[3]);
  return h("ul", { class: "regions" }, rows.map(([, x, y, count, words, share]) => h("li", {},
    h("button", { type: "button", title: `${percent(share)} of its images are called so`, onclick: () => view.move(x, y, 4) }, h("span", {}, name(words.map(say).join(", "), 70)), h("span", { class: "quiet" }, show(count))))));
}

function showSelection(picked, view) {
  const images = selectedImages();
  picked.replaceChildren();
  if (!images.length) return add(picked, [h("p", { class: "quiet" }, "Draw around points with the lasso, or hold shift, to select them. Click a picture to open it.")]);
  add(picked, [h("h2", {}, `${show(images.length)} selected`), gallery(images.slice(0, 24), 60),
    h("p", {}, h("button", { type: "button", onclick: () => view.reselect(null) }, "Clear"), " ", h("a", { href: "#/images?selected=1" }, "All of them"))]);
}

function layerQuality(layer) {
  const words = { knn_preservation: "neighbours kept", trustworthiness: "trustworthiness", label_agreement: "label agreement", label_chance: "by chance" };
  return facts(Object.entries(words).map(([key, text]) => [text, percent(layer.quality[key])]));
}

// The name of what is under the pointer.
function hovering(view) {
  const tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  view.box.append(tip);
  let last = null;
  view.hover = async (event) => {
    const image = view.pick(view.at(event)), box = view.box.getBoundingClientRect();
    view.box.classList.toggle("over-image", image !== null);
    tip.hidden = image === null;
    tip.style.left = Math.min(event.clientX - box.left + 14, box.width - 240) + "px";
    tip.style.top = Math.min(event.clientY - box.top + 14, box.height - 120) + "px";
    if (image === null || image === last) return;
    last = image;
    const at = place(image), keys = await load("keys/" + at.name);
    if (last === image) tip.replaceChildren(tile(image, 72), h("span", {}, clean(keys[at.row], 90)));
  };
  view.box.addEventListener("pointerleave", () => { tip.hidden = true; });
}

function savePoints(view) {
  const width = 2400, height = Math.round((width * view.points.height) / view.points.width), canvas = h("canvas", { width, height });
  const ratio = (width / view.points.width) * view.ratio, frame = view.frame(width, height, ratio);
  const data = { ...view.data, sums: null, pixels: null }, paper = h("canvas", { width, height }), context = paper.getContext("2d");
  drawPoints(canvas, data, frame);
  context.fillStyle = dark() ? "#121214" : "#ffffff";
  context.fillRect(0, 0, width, height);
  context.drawImage(canvas, 0, 0);
  drawWords(paper, data, frame);
  h("a", { download: `${data.file}.png`, href: paper.toDataURL("image/png") }).click();
}
