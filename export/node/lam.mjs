// LAM in JavaScript: texts of any length to unit vectors.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";

const readJson = async (path) => JSON.parse(await readFile(path, "utf8"));

export class Lam {
  /**
   * @param ort the module onnxruntime-node or onnxruntime-web.
   * @param folder a model folder with graphs, as `lam export onnx` wrote it.
   * @param file the graph within it: onnx/model*.onnx reads a text as a whole. onnx/step_portable.onnx reads block by
   *   block, in constant memory; the other step graphs, and model.onnx of older folders, read one block only, for
   *   JavaScript's interface takes no input that has a default, as their state has.
   */
  static async load(ort, folder, file = "onnx/model.onnx") {
    const lam = new Lam();
    lam.ort = ort;
    lam.tokenizer = new Tokenizer(
      await readJson(join(folder, "tokenizer.json")),
      await readJson(join(folder, "tokenizer_config.json")),
    );
    lam.session = await ort.InferenceSession.create(await readFile(join(folder, file)), { logSeverityLevel: 3 });
    lam.carried = lam.session.inputMetadata.filter(({ name }) => name.startsWith("past_"));
    const readsBlocks = lam.session.outputNames.includes("present_sum");
    lam.block = readsBlocks ? (await readJson(join(folder, "config.json"))).block_size : Infinity; // tokens
    lam.limit = readsBlocks && !lam.carried.length ? lam.block : Infinity;
    return lam;
  }

  /** Token ids, the special ones included. */
  tokens(text) {
    return this.tokenizer.encode(text).ids;
  }

  /** The unit vector of a text, a Float32Array. */
  async encode(text) {
    const { Tensor } = this.ort;
    const ids = this.tokens(text);
    if (ids.length > this.limit) {
      throw new Error(`the text has ${ids.length} tokens, this graph reads ${this.limit}: take model.onnx of a new export`);
    }
    let past = {};
    for (const { name, shape } of this.carried) {
      const sizes = [1, ...shape.slice(1)];
      past[name] = new Tensor("float32", new Float32Array(sizes.reduce((a, b) => a * b)), sizes);
    }
    let vector;
    for (let start = 0; start < ids.length; start += this.block) {
      const block = BigInt64Array.from(ids.slice(start, start + this.block), BigInt);
      const outputs = await this.session.run({
        input_ids: new Tensor("int64", block, [1, block.length]),
        attention_mask: new Tensor("int64", block.map(() => 1n), [1, block.length]),
        ...past,
      });
      vector = outputs.sentence_embedding.data;
      past = Object.fromEntries(this.carried.map(({ name }) => [name, outputs[name.replace("past", "present")]]));
    }
    return vector;
  }
}
