/* Traced calls of single images, as a campaign takes them. */

import type { CaseFamily } from '../family.ts';
import { describe, type ImageCase } from './case.ts';
import { IMAGE_CELLS } from './cells.ts';
import { generate } from './generate.ts';
import { parseImageCase } from './parse.ts';
import { openImageRunner } from './runner.ts';
import { shrink } from './shrink.ts';

export const IMAGE_FAMILY: CaseFamily<ImageCase> = {
  name: 'image',
  cells: IMAGE_CELLS,
  generate,
  shrink,
  describe,
  parse: parseImageCase,
  open: openImageRunner,
};
