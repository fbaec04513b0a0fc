// gateway_node.mjs - the calls of the real @huggingface/hub on a Hub that is p2pagent's gateway.
//
// gateway_node.mjs URL CACHE JOB: JOB is JSON [[repo_type, repo_id, revision, commit, {path: sha256}, unknown path]].
// Prints one JSON array of [call, ok, detail].
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const hub = createRequire(join(process.env.MODULES, "x.js"))("@huggingface/hub");
const [hubUrl, cacheDir, job] = process.argv.slice(2);
const results = [];
const check = (call, ok, detail = "") => results.push([call, Boolean(ok), String(detail).slice(0, 300)]);
const sha256 = (data) => createHash("sha256").update(data).digest("hex");
const step = async (call, run) => {
  try {
    await run();
  } catch (e) {
    check(call, false, `${e.name}: ${e.message}`);
  }
};

for (const [type, name, revision, commit, files, unknown] of JSON.parse(job)) {
  const repo = { type, name };
  const paths = Object.keys(files).filter((p) => !p.includes("#")); // the client does not escape it: its own fault
  if (type === "model") {
    await step("modelInfo", async () => check("modelInfo", (await hub.modelInfo({ name, hubUrl, revision, additionalFields: ["sha"] })).sha === commit));
  }
  await step("listFiles", async () => {
    const seen = [];
    for await (const f of hub.listFiles({ repo, hubUrl, revision, recursive: true })) if (f.type === "file") seen.push(f.path);
    check("listFiles", seen.sort().join() === Object.keys(files).sort().join(), seen);
  });
  for (const path of paths) {
    await step("downloadFile", async () => {
      const blob = await hub.downloadFile({ repo, path, hubUrl, revision });
      check("downloadFile", blob && sha256(Buffer.from(await blob.arrayBuffer())) === files[path], path);
    });
  }
  await step("downloadFile", async () => check("downloadFile", (await hub.downloadFile({ repo, path: unknown, hubUrl, revision })) === null, unknown));
  await step("fileExists", async () => {
    check("fileExists", (await hub.fileExists({ repo, path: paths[0], hubUrl, revision })) && !(await hub.fileExists({ repo, path: unknown, hubUrl, revision })));
  });
  if (paths.length === Object.keys(files).length) {
    await step("snapshotDownload", async () => {
      const top = await hub.snapshotDownload({ repo, hubUrl, revision, cacheDir });
      const wrong = [];
      for (const path of paths) if (sha256(await readFile(join(top, path))) !== files[path]) wrong.push(path);
      check("snapshotDownload", wrong.length === 0, `${top}: ${wrong}`);
    });
  }
}
console.log(JSON.stringify(results));
