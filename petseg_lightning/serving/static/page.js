// Sends each picture to the server on its own, one after the other, and shows what comes back.
"use strict";

const [box, status, errors, results] = ["pictures", "status", "errors", "results"].map((id) => document.getElementById(id));
const input = box.querySelector("input");
const pictures = new WeakMap(); // an article -> the file that it shows, for its downloads
const TRIES = 10; // of a server that is busy
let waiting = [], running = false, done = 0, failed = 0;

async function give(files) {
  if (!running) {
    [done, failed] = [0, 0];
    errors.replaceChildren();
    results.replaceChildren();
  }
  waiting.push(...files);
  if (running) return;
  running = true;
  while (waiting.length) {
    status.textContent = `Predicting picture ${done + failed + 1} of ${done + failed + waiting.length} …`;
    const file = waiting.shift();
    try {
      show(file, await (await send(file, "result")).text());
      done += 1;
    } catch (error) {
      failed += 1;
      complain(error.message);
    }
  }
  running = false;
  status.textContent = `${done} ${done === 1 ? "picture" : "pictures"} done`;
}

async function send(file, where) {
  const megabytes = Number(box.dataset.maxMegabytes);
  if (file.size > megabytes * 2 ** 20) throw new Error(`${file.name}: has more than ${megabytes} MB; save it smaller`);
  const form = new FormData();
  form.append("picture", file, file.name);
  for (let left = TRIES; ; left -= 1) {
    const answer = await fetch(where, { method: "POST", body: form }).catch(() => {
      throw new Error(`${file.name}: could not be sent; see whether the file and the server are still there`);
    });
    if (answer.ok) return answer;
    if (answer.status !== 503 || left === 1) throw new Error((await answer.json()).detail);
    await new Promise((resolve) => setTimeout(resolve, 1000 * Number(answer.headers.get("Retry-After"))));
  }
}

function show(file, html) {
  results.insertAdjacentHTML("beforeend", html);
  const article = results.lastElementChild;
  const compare = article.querySelector(".compare");
  compare.style.setProperty("--ratio", compare.dataset.ratio);
  pictures.set(article, file);
}

function complain(message) {
  const line = document.createElement("li");
  line.textContent = message;
  errors.append(line);
}

async function download(button) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    const answer = await send(pictures.get(button.closest("article")), `predict?output=${button.dataset.output}`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = button.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    complain(error.message);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

input.addEventListener("change", () => {
  give([...input.files]);
  input.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) give([...event.clipboardData.files]);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    box.classList.toggle("over", kind === "dragover");
    if (kind === "drop") give([...event.dataTransfer.files]);
  });
}
results.addEventListener("input", (event) => {
  event.target.closest(".compare").style.setProperty("--at", `${event.target.value}%`);
});
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.output) await download(button);
  if (button?.dataset.href) {
    const answer = await fetch(button.dataset.href).catch(() => null);
    if (answer?.ok) give([new File([await answer.blob()], button.dataset.name)]);
    else complain(`${button.dataset.name}: is no longer there`);
  }
});
