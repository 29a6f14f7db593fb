// The elementwise arithmetic of reductions, for every dtype, on raw bytes. Pure functions, any
// thread. The same bits on every machine: fixed operand order, no contraction; 16-bit floats are
// computed in fp32 and rounded to nearest even after every operation; integers wrap around.
//
// No alignment is needed. `out` may be the same memory as `a` or `b`, but must not overlap them
// otherwise. Failure: sizes that do not fit are a bug of the caller (check).
#pragma once

#include <cstddef>
#include <span>

#include "atoll/wire/description.h"

namespace reef {

// out[i] = a[i] o b[i], where avg adds. Minimum and maximum give NaN when either is NaN.
void combine(DType dtype, Reduction reduction, std::span<std::byte> out,
             std::span<const std::byte> a, std::span<const std::byte> b);

// out[i] = weight * x[i], in double for f64 and in fp32 otherwise. Floating dtypes only.
void scale(DType dtype, double weight, std::span<std::byte> out, std::span<const std::byte> x);

// values[i] = values[i] / total: in double, rounded once; integers truncate towards zero.
void divide(DType dtype, double total, std::span<std::byte> values);

// What a member that contributes nothing stands for: 0, 1 (product), the largest value (min) or the
// smallest (max).
void fill_identity(DType dtype, Reduction reduction, std::span<std::byte> values);

}  // namespace reef
