// Arithmetic that must give the same bits on every machine: fp32, fixed order, no contraction
// (the build passes -ffp-contract=off). Pure functions, any thread.
#pragma once

#include <cstddef>
#include <span>

namespace reef {

// acc[i] = acc[i] + x[i]
void add(std::span<float> acc, std::span<const float> x);
// out[i] = a[i] + b[i]
void add(std::span<float> out, std::span<const float> a, std::span<const float> b);

// DiLoCo's outer step (arXiv 2311.08105), out of place, all spans of one length:
//   delta = sum[i] * inverse_weight;  momentum_out = mu*momentum + delta;
//   theta_out = theta - eta*(delta + mu*momentum_out)
void nesterov_step(std::span<float> theta_out, std::span<float> momentum_out,
                   std::span<const float> theta, std::span<const float> momentum,
                   std::span<const float> sum, float inverse_weight, float eta, float mu);

}  // namespace reef
