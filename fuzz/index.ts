export {
  FAMILY_CHOICES,
  FAMILY_NAMES,
  type FamilyChoice,
  type FamilyName,
  FUZZ_ENGINES,
  type FuzzEngine,
  JUDGED_REVISIONS,
  makePlan,
  type Plan,
  type Shard,
} from './plan.ts';
