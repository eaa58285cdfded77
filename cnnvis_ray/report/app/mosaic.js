// A mosaic: every image at its place, to zoom into. The viewer is loaded on these pages only.
"use strict";

app.pages.mosaic = { title: "Mosaics", when: () => app.run.mosaics.length > 0, first: () => ["mosaic", app.run.mosaics[0][0]], show: showMosaic };

async function showMosaic([text], query, main) {
  const found = app.run.mosaics.find(([known]) => known === text);
  if (!found) return missing(main, `There is no mosaic ${text}.`);
  const [size] = await Promise.all([load("mosaics/" + found[1]), loadViewer()]);
  const box = h("div", { class: "mosaic", id: "mosaic", role: "img", "aria-label": `Mosaic ${clean(text)}` });
  let viewer = null;
  const zoom = (factor) => viewer.viewport.zoomBy(factor).applyConstraints();
  add(main, [h("div", { class: "row" }, h("h1", {}, name(text)), app.run.mosaics.length > 1 && choice("Mosaic", app.run.mosaics.map(([known]) => [known, known]), text, (value) => { location.hash = address("mosaic", value); }),
    h("button", { type: "button", "aria-label": "Zoom in", onclick: () => zoom(1.6) }, "+"), h("button", { type: "button", "aria-label": "Zoom out", onclick: () => zoom(1 / 1.6) }, "−"), h("button", { type: "button", onclick: () => viewer.viewport.goHome() }, "Whole mosaic")), box]);
  // Its WebGL drawer stays blank on file://, and a description by address would be a request.
  viewer = OpenSeadragon({ element: box, drawer: "canvas", showNavigationControl: false, animationTime: 0.4, maxZoomPixelRatio: 2, gestureSettingsMouse: { clickToZoom: false },
    tileSources: { width: size.width, height: size.height, tileSize: size.tile, tileOverlap: size.overlap, minLevel: 8, getTileUrl: (level, x, y) => `mosaic/${found[1]}_files/${level}/${x}_${y}.jpg` } });
  leave(() => viewer.destroy());
}

function loadViewer() {
  app.viewer = app.viewer || new Promise((resolve, reject) => {
    // It adds a style to the page, which the policy refuses, unless an element of that name is there.
    const known = document.createElementNS("none", "style");
    known.setAttribute("data-openseadragon-mobile-css", "true");
    document.head.append(known);
    const script = h("script", { src: "app/openseadragon.min.js", onload: resolve, onerror: () => reject(new Error("app/openseadragon.min.js did not load")) });
    document.head.append(script);
  });
  return app.viewer;
}
