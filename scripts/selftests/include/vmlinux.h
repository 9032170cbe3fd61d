/*
 * In place of the types of a whole kernel: the selftests that are run here need integers and bool of it, and
 * what the helpers' declarations name.
 */
#pragma once
#include <linux/bpf.h>
#include <stdbool.h>
