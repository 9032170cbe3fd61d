import { InputError } from '../lib/index.ts';

/**
 * What a run needs cannot be had on this machine: no network, no packages of Debian's, no tool to unpack them.
 * Nothing was asked and nothing is wrong; whoever runs many checks may go on without this one, and say so.
 */
export class Unavailable extends InputError {
  override readonly name: string = 'Unavailable';

  constructor(what: string, message: string) {
    super(what, undefined, message);
  }
}
