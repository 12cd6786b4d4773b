// A model folder in transformers.js: the pipeline "feature-extraction" with mean pooling, offline.
// node transformers_check.mjs MODEL_FOLDER EXPECTED.json

import { readFile } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { env, pipeline } from "@huggingface/transformers";

const TOLERANCE = 1e-5; // largest difference of a number of a unit vector
const LEAST_COSINE = 0.99; // of the quantized graph's vectors, in the mean
const BATCH = 8; // texts
const [folder, path] = process.argv.slice(2).map((argument) => resolve(argument));
const expected = JSON.parse(await readFile(path, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);

for (const dtype of ["fp32", "q8"]) {
  const extract = await pipeline("feature-extraction", basename(folder), { dtype });
  let difference = 0;
  let cosines = 0;
  for (let start = 0; start < expected.length; start += BATCH) {
    const batch = expected.slice(start, start + BATCH);
    for (const { text, tokens } of batch) {
      const read = extract.tokenizer(text, { truncation: true }).input_ids.dims[1];
      if (read !== tokens) throw new Error(`transformers.js reads ${read} tokens of a text that has ${tokens}`);
    }
    const found = await extract(batch.map(({ text }) => text), { pooling: "mean", normalize: true });
    found.tolist().forEach((vector, row) => {
      vector.forEach((x, i) => {
        difference = Math.max(difference, Math.abs(x - batch[row].vector[i]));
        cosines += x * batch[row].vector[i];
      });
    });
  }
  const cosine = cosines / expected.length;
  const right = dtype === "q8" ? cosine >= LEAST_COSINE : difference <= TOLERANCE; // a NaN is not
  const line = `transformers.js, ${dtype}: ${expected.length} texts, largest difference ${difference.toExponential(1)}`;
  console.log(`${line}, cosine ${cosine.toFixed(4)} in the mean${right ? "" : ": WRONG"}`);
  if (!right) process.exitCode = 1;
}
