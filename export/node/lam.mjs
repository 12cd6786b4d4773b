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
    const ids = this.tokens(text);
    if (ids.length > this.limit) {
      throw new Error(`the text has ${ids.length} tokens, this graph reads ${this.limit}: take model.onnx of a new export`);
    }
    let outputs;
    let past = this.nothing();
    for (let start = 0; start < ids.length; start += this.block) {
      outputs = await this.run(ids.slice(start, start + this.block), past);
      past = this.after(past, outputs, start === 0);
    }
    return outputs.sentence_embedding.data;
  }

  /**
   * The unit vectors of a document and of its passages, each of which knows the document's beginning and the passage
   * before it. Needs a graph that reads block by block: onnx/step_portable.onnx.
   * @param passages the texts of the passages, in order.
   * @param title of the document, where it is known apart from the text.
   * @returns {{vector: Float32Array, vectors: Float32Array[]}}
   */
  async encodePassages(passages, title = "") {
    if (!this.carried.length) {
      throw new Error("this graph carries nothing from passage to passage: take onnx/step_portable.onnx");
    }
    const [cls, sep] = this.tokens("");
    const most = this.block - 2;
    const words = (text) => this.tokens(text).slice(1, -1);
    const ids = passages.map(words);
    const room = Math.min(BEGINNING, most);
    const first = words(title).slice(0, Math.floor(room / 2));
    const beginning =
      passages.length > 1 || title ? [...first, ...ids.flat().slice(0, room - 2 * first.length), ...first] : [];
    const parts = beginning.length ? [[-1, beginning]] : [];
    ids.forEach((tokens, number) => {
      // A longer passage is several parts: their sums add up to its own.
      for (let i = 0; i < Math.max(1, tokens.length); i += most) parts.push([number, tokens.slice(i, i + most)]);
    });
    const none = this.nothing();
    let past = none;
    const sums = passages.map(() => null);
    let about = null;
    for (const [index, [number, part]] of parts.entries()) {
      const outputs = await this.run([cls, ...part, sep], past);
      if (number >= 0) sums[number] = add(sums[number], outputs.present_sum.data);
      else about = unit(Float32Array.from(outputs.present_sum.data));
      past = { ...this.after(past, outputs, index === 0), past_sum: none.past_sum, past_count: none.past_count };
    }
    const own = sums.map(unit);
    const vectors = own.map((vector, i) => {
      const sum = i ? add(vector, own[i - 1], OF_BEFORE) : vector;
      return unit(about ? add(sum, about, OF_BEGINNING) : sum);
    });
    return { vector: unit(sums.reduce((one, other) => add(one, other))), vectors };
  }

  /** What a text's first block starts from. */
  nothing() {
    const past = {};
    for (const { name, shape } of this.carried) {
      const sizes = [1, ...shape.slice(1)];
      past[name] = new this.ort.Tensor("float32", new Float32Array(sizes.reduce((a, b) => a * b)), sizes);
    }
    return past;
  }

  /** What the next block starts from. */
  after(past, outputs, first) {
    return Object.fromEntries(
      this.carried.map(({ name }) => {
        if (!name.startsWith("past_beginning")) return [name, outputs[name.replace("past", "present")]];
        return [name, first ? outputs[name.replace("past_beginning", "present_state")] : past[name]];
      }),
    );
  }

  async run(ids, past) {
    const { Tensor } = this.ort;
    const block = BigInt64Array.from(ids, BigInt);
    return this.session.run({
      input_ids: new Tensor("int64", block, [1, block.length]),
      attention_mask: new Tensor("int64", block.map(() => 1n), [1, block.length]),
      ...past,
    });
  }
}

const BEGINNING = 64; // tokens of title and text, which every passage knows
const OF_BEGINNING = 0.1; // of their unit vectors, that is added to a passage's own
const OF_BEFORE = 0.1;
const add = (one, other, times = 1) => (one ? one.map((x, i) => x + times * other[i]) : Float32Array.from(other));
const unit = (sum) => {
  const norm = Math.sqrt(sum.reduce((total, x) => total + x * x, 0));
  return sum.map((x) => x / norm);
};
