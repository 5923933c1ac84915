"use strict";
// Figures carry colours as "@name" or "@name/opacity"; drawn anew when the scheme changes.
const dark = matchMedia("(prefers-color-scheme: dark)");
const figures = JSON.parse(document.getElementById("figures").textContent);
const variable = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

function coloured(value) {
  if (typeof value === "string" && value.startsWith("@")) {
    const [name, opacity] = value.slice(1).split("/");
    const hex = variable(name);
    if (!opacity) return hex;
    const part = (i) => parseInt(hex.slice(i, i + 2), 16);
    return `rgba(${part(1)}, ${part(3)}, ${part(5)}, ${opacity})`;
  }
  if (Array.isArray(value)) return value.map(coloured);
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v)]));
  return value;
}

function look(layout) {
  const ink = variable("ink"), soft = variable("soft"), rule = variable("rule");
  const axis = {
    gridcolor: rule, linecolor: rule, tickfont: { color: soft, size: 12 }, tickcolor: rule,
  };
  const merged = coloured(layout);
  for (const name of ["xaxis", "yaxis"]) {
    merged[name] = { ...axis, fixedrange: true, ...merged[name] };
    if (merged[name].title) merged[name].title.font = { color: soft, size: 12.5 };
  }
  return {
    ...merged, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
    hoverlabel: {
      bgcolor: variable("card"), bordercolor: rule, font: { color: ink, size: 12.5 }, namelength: -1,
    },
  };
}

const options = { displayModeBar: false, responsive: true, displaylogo: false };
function draw() {
  const drawn = [...document.querySelectorAll(".figure")].map((place) => {
    const figure = figures[place.dataset.figure];
    return Plotly.react(place, coloured(figure.data), look(figure.layout), options);
  });
  return Promise.all(drawn);
}
window.drawn = draw();
dark.addEventListener("change", () => { window.drawn = draw(); });

// Videos are unpacked as they come near; the slider goes picture by picture.
function open(figure) {
  const video = figure.querySelector("video");
  const [button, slider, told] = figure.querySelector(".controls").children;
  const fps = Number(figure.dataset.fps), frames = Number(figure.dataset.frames);
  const packed = figure.querySelector(".mp4");
  const bytes = Uint8Array.from(atob(packed.textContent), (c) => c.charCodeAt(0));
  packed.remove();
  video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
  const last = Math.max(frames - 1, 0);
  const at = () => Math.min(last, Math.max(0, Math.floor(video.currentTime * fps + 0.01)));
  const tell = (i) => { slider.value = i; told.textContent = `${i + 1} / ${frames}`; };
  let playing = 0;
  const step = () => { tell(at()); playing = requestAnimationFrame(step); };
  slider.addEventListener("input", () => {
    video.pause();
    video.currentTime = (Number(slider.value) + 0.5) / fps;
    tell(Number(slider.value));
  });
  button.addEventListener("click", () => {
    if (!video.paused) return video.pause();
    if (video.ended || at() >= last) video.currentTime = 0;
    video.play();
  });
  video.addEventListener("play", () => { button.textContent = "❚❚"; step(); });
  video.addEventListener("pause", () => { button.textContent = "▶"; cancelAnimationFrame(playing); });
  video.addEventListener("ended", () => { cancelAnimationFrame(playing); tell(last); });
}
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((e) => e.isIntersecting)) {
    near.unobserve(entry.target);
    open(entry.target);
  }
}, { rootMargin: "600px" });
document.querySelectorAll("figure.video").forEach((figure) => near.observe(figure));
