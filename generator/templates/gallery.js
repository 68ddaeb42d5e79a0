"use strict";
// Clips are a few frames long, and native looping drifts within a second. So each visible clip's frames are decoded once
// and drawn from one clock: every clip of a row shows the same frame, always, and scrubbing is exact.
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const DECODERS = 3, CLIP_BYTES = 24e6;
  const clock = { frames: 0, playing: !matchMedia("(prefers-reduced-motion: reduce)").matches, speed: 1, last: 0 };
  const scrub = $("#scrub"), search = $("#search"), viewer = $("#viewer");
  const scenes = $$(".scene"), figures = $$(".clip");

  // --- decoding, on demand ------------------------------------------------------------------------------------------
  const clips = new Map();
  for (const figure of figures) {
    const screen = $(".screen", figure);
    if (!screen.dataset.src) continue;
    clips.set(figure, { figure, src: screen.dataset.src, canvas: $("canvas", figure), count: +figure.dataset.frames,
      fps: +figure.dataset.fps, wanted: false, bitmaps: [], width: 0, shown: -1 });
  }
  const waiting = [];
  let busy = 0;

  function want(clip) {
    clip.wanted = true;
    if (clip.figure.dataset.state === "poster" && !waiting.includes(clip)) waiting.push(clip);
    work();
  }
  function release(clip) {
    clip.wanted = false;
    const place = waiting.indexOf(clip);
    if (place >= 0) waiting.splice(place, 1);
    if (clip.figure.dataset.state === "ready") discard(clip);
  }
  function discard(clip) {
    clip.canvas.hidden = true;
    clip.bitmaps.forEach((bitmap) => bitmap.close());
    clip.bitmaps = [];
    clip.shown = -1;
    clip.figure.dataset.state = "poster";
  }
  function work() {
    while (busy < DECODERS && waiting.length) {
      const clip = waiting.shift();
      busy += 1;
      clip.figure.dataset.state = "loading";
      decode(clip).catch(() => decode(clip)).then((bitmaps) => { // a busy machine may run out of video decoders: ask twice
        clip.bitmaps = bitmaps;
        clip.figure.dataset.state = "ready";
        if (!clip.wanted) discard(clip);
      }, (error) => {
        clip.figure.dataset.state = "broken";
        clip.figure.title = String(error.message || error);
      }).finally(() => { busy -= 1; work(); });
    }
  }
  async function decode(clip) {
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.preload = "auto";
    const failed = new Promise((_, refuse) => video.addEventListener("error", () => refuse(new Error(video.error ? video.error.message : "no video"))));
    const happens = (name) => Promise.race([failed, new Promise((done) => video.addEventListener(name, done, { once: true }))]);
    const loaded = happens("loadeddata");
    video.src = clip.src;
    await loaded;
    const ratio = video.videoWidth / video.videoHeight;
    clip.width = clip.canvas.parentElement.clientWidth * Math.min(devicePixelRatio, 2);
    const most = Math.sqrt(CLIP_BYTES / 4 / clip.count * ratio);
    const width = Math.max(1, Math.round(Math.min(video.videoWidth, clip.width, most)));
    const size = { resizeWidth: width, resizeHeight: Math.max(1, Math.round(width / ratio)), resizeQuality: "high" };
    const bitmaps = [];
    for (let index = 0; index < clip.count; index += 1) {
      const sought = happens("seeked");
      video.currentTime = (index + 0.5) / clip.fps;
      await sought;
      bitmaps.push(await createImageBitmap(video, size));
    }
    video.removeAttribute("src");
    video.load();
    return bitmaps;
  }
  const nearby = new IntersectionObserver((entries) => entries.forEach((entry) => {
    const clip = clips.get(entry.target);
    if (clip) (entry.isIntersecting ? want : release)(clip);
  }), { rootMargin: "40% 10%" });
  clips.forEach((_, figure) => nearby.observe(figure));

  // --- one clock ------------------------------------------------------------------------------------------------------
  const most = +scrub.max + 1;
  const fps = figures.length ? +figures[0].dataset.fps : 16;
  function draw() {
    const frame = Math.floor(clock.frames + 1e-6);
    for (const clip of clips.values()) {
      if (!clip.bitmaps.length) continue;
      const index = frame % clip.count;
      if (index === clip.shown) continue;
      const bitmap = clip.bitmaps[index];
      if (clip.canvas.width !== bitmap.width || clip.canvas.height !== bitmap.height) {
        clip.canvas.width = bitmap.width;
        clip.canvas.height = bitmap.height;
      }
      clip.canvas.getContext("2d").drawImage(bitmap, 0, 0);
      clip.canvas.hidden = false;
      clip.canvas.dataset.frame = index;
      clip.shown = index;
    }
    for (const layer of layers) {
      const count = +layer.figure.dataset.frames, index = frame % count;
      if (layer.span.hidden || index === layer.shown) continue;
      layer.span.style.backgroundPositionY = `${count > 1 ? 100 * index / (count - 1) : 0}%`;
      layer.span.dataset.frame = index;
      layer.shown = index;
    }
    if (document.activeElement !== scrub || clock.playing) scrub.value = frame % most;
    $("#frame").textContent = `${frame % most + 1} / ${most}`;
  }
  function tick(now) {
    if (clock.playing && !viewer.open) clock.frames += Math.min(0.25, (now - clock.last) / 1000) * fps * clock.speed;
    clock.last = now;
    draw();
    requestAnimationFrame(tick);
  }
  function play(on) {
    clock.playing = on;
    $("#play").setAttribute("aria-pressed", String(on));
  }
  function step(by) {
    play(false);
    clock.frames = (Math.floor(clock.frames + 1e-6) + by + most) % most;
  }
  $("#play").addEventListener("click", () => play(!clock.playing));
  $("#speed").addEventListener("change", (event) => { clock.speed = +event.target.value; });
  scrub.addEventListener("input", () => { play(false); clock.frames = +scrub.value; });
  $("#zoom").addEventListener("input", (event) => document.documentElement.style.setProperty("--zoom", event.target.value));
  $("#zoom").addEventListener("change", () => clips.forEach((clip) => {
    const shown = clip.canvas.parentElement.clientWidth * Math.min(devicePixelRatio, 2);
    if (clip.figure.dataset.state === "ready" && shown > 1.2 * clip.width) { discard(clip); want(clip); }
  }));

  // --- filters --------------------------------------------------------------------------------------------------------
  function filter() {
    const wanted = {};
    for (const chip of $$(".chip[aria-pressed=true]")) (wanted[chip.dataset.facet] ||= []).push(chip.dataset.value);
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0, shownClips = 0;
    for (const scene of scenes) {
      const fits = Object.entries(wanted).every(([facet, values]) => scene.dataset[facet].split("|").some((value) => values.includes(value)))
        && words.every((word) => scene.dataset.search.includes(word));
      scene.hidden = !fits;
      if (fits) { shown += 1; shownClips += $$(".clip", scene).length; }
    }
    $("#count").textContent = shown === scenes.length ? `${figures.length} clips` : `${shownClips} of ${figures.length} clips`;
    $("#nothing").hidden = shown > 0;
  }
  for (const chip of $$(".chip")) chip.addEventListener("click", () => {
    chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
    filter();
  });
  search.addEventListener("input", filter);
  $("#reset").addEventListener("click", () => {
    $$(".chip").forEach((chip) => chip.setAttribute("aria-pressed", "false"));
    search.value = "";
    filter();
  });

  // --- ground truth over the clips: a strip of frames per scene, moved to the frame of the clock -------------------------
  const layers = $$(".layer").map((span) => ({ span, figure: span.closest(".clip"), shown: -1 }));
  for (const chip of $$(".chip-layer")) chip.addEventListener("click", () => {
    const on = chip.getAttribute("aria-pressed") !== "true";
    $$(".chip-layer").forEach((other) => other.setAttribute("aria-pressed", String(on && other === chip)));
    for (const layer of layers) {
      const strip = $(`.layer-strip[data-layer="${chip.dataset.layer}"]`, layer.figure.closest(".scene"));
      layer.span.hidden = !on || !strip;
      layer.span.dataset.layer = chip.dataset.layer;
      layer.shown = -1;
      if (layer.span.hidden) continue;
      layer.span.style.backgroundImage = `url("${strip.src}")`;
      layer.span.style.backgroundSize = `100% ${100 * layer.figure.dataset.frames}%`;
    }
  });

  // --- light and dark ---------------------------------------------------------------------------------------------------
  $("#theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    root.dataset.theme = dark ? "light" : "dark";
  });

  // --- the ruler lights up with its clip --------------------------------------------------------------------------------
  function light(figure, on) {
    for (const mark of $$(".mark", figure.closest(".scene"))) if (mark.dataset.clip === figure.id) mark.classList.toggle("lit", on);
  }
  for (const figure of figures) {
    for (const [name, on] of [["mouseenter", true], ["mouseleave", false]]) figure.addEventListener(name, () => light(figure, on));
    for (const [name, on] of [["focusin", true], ["focusout", false]]) figure.addEventListener(name, () => light(figure, on));
    $(".screen", figure).addEventListener("click", () => enlarge(figure));
  }

  // --- one clip, large --------------------------------------------------------------------------------------------------
  let enlarged = null, opener = null; // the clip that is shown, and the element that the browser gives the focus back to
  function enlarge(figure) {
    enlarged = figure;
    if (!viewer.open) opener = document.activeElement;
    const src = $(".screen", figure).dataset.src;
    const media = document.createElement(src ? "video" : "img");
    if (src) Object.assign(media, { muted: true, loop: true, controls: true, autoplay: clock.playing, playsInline: true });
    media.src = src || $("img", figure).src;
    if (src) media.playbackRate = clock.speed;
    $(".stage").replaceChildren(media);
    $(".notes").replaceChildren($(".details", figure).content.cloneNode(true));
    if (!viewer.open) viewer.showModal();
  }
  function visible() { return figures.filter((figure) => !figure.closest(".scene").hidden); }
  function neighbour(figure, by) { const all = visible(); return all[all.indexOf(figure) + by]; }
  $("#previous").addEventListener("click", () => { const other = neighbour(enlarged, -1); if (other) enlarge(other); });
  $("#next").addEventListener("click", () => { const other = neighbour(enlarged, 1); if (other) enlarge(other); });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => {
    $(".stage").replaceChildren();
    // This event comes late: whoever has pressed a key meanwhile has the focus elsewhere, and keeps it.
    if (enlarged && [opener, document.body].includes(document.activeElement)) $(".screen", enlarged).focus();
  });

  // --- keys -------------------------------------------------------------------------------------------------------------
  function focus(figure) {
    if (!figure) return;
    $(".screen", figure).focus();
    figure.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  function beside(figure, by) {
    const rows = scenes.filter((scene) => !scene.hidden);
    const row = rows[rows.indexOf(figure.closest(".scene")) + by];
    const place = $$(".clip", figure.closest(".scene")).indexOf(figure);
    const others = row ? $$(".clip", row) : [];
    return others[Math.min(place, others.length - 1)];
  }
  const skip = $(".skip"); // the first stop of the tab key, which the page of a diff lacks: arrows go on from there
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = document.activeElement, typing = at.matches("input, select, textarea");
    if (viewer.open) {
      if (event.key === "ArrowLeft") $("#previous").click();
      else if (event.key === "ArrowRight") $("#next").click();
      else return;
      event.preventDefault();
      return;
    }
    if (event.key === "Escape" && at === search) { search.blur(); return; }
    if (typing) return;
    const figure = at.closest(".clip");
    const moves = { ArrowLeft: () => focus(neighbour(figure, -1)), ArrowRight: () => focus(neighbour(figure, 1)),
      ArrowUp: () => focus(beside(figure, -1)), ArrowDown: () => focus(beside(figure, 1)) };
    if (event.key === " " && (figure || !at.matches("button"))) play(!clock.playing);
    else if (event.key === ",") step(-1);
    else if (event.key === ".") step(1);
    else if (event.key === "/") search.focus();
    else if (figure && moves[event.key]) moves[event.key]();
    else if (skip && at === skip && moves[event.key]) focus(visible()[0]);
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else return;
    event.preventDefault();
  });
  skip?.addEventListener("click", (event) => {
    focus(visible()[0]);
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && document.activeElement.matches(".screen")) event.preventDefault();
  });

  play(clock.playing);
  filter();
  requestAnimationFrame((now) => { clock.last = now; tick(now); });
})();
