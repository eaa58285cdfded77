// All images, and what a search finds: keys, classes, channels.
"use strict";

app.pages.images = { title: "Images", first: () => ["images"], show: showImages };

const PAGE = 240;
const MOST_HITS = 50000; // further ones cost more than 50 ms and help nobody

async function showImages(parts, query, main) {
  const text = query.get("q") || "", title = h("h1", {}, "Images");
  main.append(title);
  document.getElementById("query").value = text;
  if (query.get("selected")) {
    title.textContent = "Selected images";
    return paged(main, selectedImages());
  }
  if (!text) {
    if (app.run.explained.length) add(main, [section("Explained by heat maps", gallery(app.run.explained.slice(0, 48))), h("h2", {}, `All ${show(app.run.images)}`)]);
    return paged(main, Array.from({ length: app.run.images }, (_, i) => i));
  }
  title.replaceChildren("Search: ", name(text, 80));
  const classes = findClasses(text), channel = findChannel(text);
  add(main, [channel && h("p", {}, link(channel, name(channel[1]), channel.length > 2 ? " / " + channel[2] : ""))]);
  add(main, [section("Classes", classes.length ? h("p", { class: "words" }, classes.slice(0, 40).map((found) => link(["class", found], name(say(found), 60)))) : null)]);
  const heading = h("h2", {}, "Keys"), list = h("div");
  main.append(heading, list);
  const images = await search(text);
  heading.textContent = images.length < MOST_HITS ? `${show(images.length)} keys` : `The first ${show(MOST_HITS)} keys`;
  const mapped = app.run.layers.filter((layer) => layer.map);
  if (images.length && mapped.length) list.append(h("p", {}, h("button", { type: "button", onclick: () => {
    select(images);
    location.hash = address("map", mapped[mapped.length - 1].name);
  } }, "Show them on the map")));
  paged(list, images);
}

function paged(main, images) {
  const list = h("div"), more = h("button", { type: "button" });
  let shown = 0;
  const step = () => {
    list.append(gallery(images.slice(shown, shown + PAGE)));
    shown = Math.min(images.length, shown + PAGE);
    more.textContent = `More: ${show(images.length - shown)} are left`;
    more.hidden = shown >= images.length;
  };
  more.addEventListener("click", step);
  step();
  main.append(list, more);
}

function findClasses(text) {
  const wanted = text.toLowerCase();
  return app.run.classes.filter((found) => found.toLowerCase().includes(wanted) || say(found).toLowerCase().includes(wanted));
}

// "features.12/40", "features.12 40" or a layer alone.
function findChannel(text) {
  const [, layerName, channel] = text.match(/^(\S+?)[\s/:]+(\d+)$/) || [null, text, null], layer = layerOf(layerName);
  if (!layer || !layer.layer) return null;
  return channel === null ? ["layer", layerName] : ["channel", layerName, channel];
}

// Keys are read once, a string per work unit, in blocks that keep the page alive.
async function readKeys() {
  if (app.keys.length === app.run.units.length) return app.keys;
  const names = app.run.units.map(([number]) => "keys/" + String(number).padStart(6, "0")), found = [];
  for (let i = 0; i < names.length; i += 16) {
    const block = await Promise.all(names.slice(i, i + 16).map(load));
    for (const keys of block) found.push(keys.map((key) => key.replace(/\n/g, " ")).join("\n").toLowerCase());
  }
  app.keys = found;
  return found;
}

async function search(text) {
  const keys = await readKeys(), start = performance.now(), wanted = text.toLowerCase(), images = [];
  for (let unit = 0; unit < keys.length && images.length < MOST_HITS; unit++) {
    const joined = keys[unit];
    let at = joined.indexOf(wanted), from = 0, row = 0;
    while (at >= 0) {
      for (let line = joined.indexOf("\n", from); line >= 0 && line < at; line = joined.indexOf("\n", from)) {
        row++;
        from = line + 1;
      }
      images.push(app.starts[unit] + row);
      const end = joined.indexOf("\n", at);
      if (end < 0) break;
      row++;
      from = end + 1;
      at = joined.indexOf(wanted, from);
    }
  }
  if (images.length > MOST_HITS) images.length = MOST_HITS;
  app.searchMilliseconds = performance.now() - start;
  return images;
}
