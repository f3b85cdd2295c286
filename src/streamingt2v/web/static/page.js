// The page: form and stage. Its address names the video on the stage.
import { ask, make } from "./api.js";
import * as form from "./form.js";
import * as shelf from "./shelf.js";
import * as stage from "./stage.js";

const ID = /^video_[0-9a-f]{24}$/;
const refresh = () => shelf.refresh(open, (id) => { if (id === shown()) clear(); else refresh(); });

function shown() {
  const id = new URLSearchParams(location.search).get("video");
  return ID.test(id ?? "") ? id : null;
}

/** Show a job as a new history entry, and its settings in the form. */
function open(id) {
  if (id !== shown()) history.pushState(null, "", `?video=${id}`);
  follow(id);
  form.useJob(id);
}

/** Show a job that the form has just created. */
function made({ id }) {
  history.pushState(null, "", `?video=${id}`);
  follow(id);
  refresh();
  if (innerWidth < 900) document.querySelector("#see").scrollIntoView({ behavior: "smooth", block: "start" });
}

function follow(id) {
  document.body.toggleAttribute("data-showing", id !== null);
  if (id) stage.open(id); else stage.close();
}

function clear() {
  history.replaceState(null, "", location.pathname);
  document.body.removeAttribute("data-showing");
  stage.close();
  refresh();
}

function gallery(examples) {
  document.querySelector("#gallery ul").replaceChildren(
    ...examples.map((example) => {
      const image = make("img", {
        src: `/page/static/examples/${example.name}.webp`,
        alt: "",
        width: 64,
        height: 64,
      });
      const button = make("button", { type: "button", title: example.settings.prompt }, image, example.title);
      button.dataset.name = example.name;
      button.onclick = () => form.useExample(example);
      return make("li", {}, button);
    }),
  );
}

const settings = await ask("/page/settings.json");
form.begin(settings, made);
gallery(settings.examples);
stage.begin({ settings, opened: open, gone: clear, changed: refresh, hint: shelf.hint });
await refresh();
addEventListener("popstate", () => { follow(shown()); if (shown()) form.useJob(shown()); });
if (shown()) { follow(shown()); form.useJob(shown()); }
