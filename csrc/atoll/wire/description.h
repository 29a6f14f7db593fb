// What an op is, and the START payload by which members make sure that they mean the same one
// (docs/wire.md). Pure values and functions. Any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"
#include "atoll/codec/codec.h"

namespace reef {

enum class OpKind : std::uint8_t {
  all_reduce = 1,
  broadcast = 2,
  barrier = 3,
  exchange = 4,
  reduce_scatter = 5,
  all_gather = 6,
  all_to_all = 7,
  send = 8,
  recv = 9,  // on the wire both sides of a transfer say `send`
};
inline constexpr std::uint8_t kLastOpKind = 9;

enum class Plan : std::uint8_t {
  none = 0,      // the core chooses; on the wire: the op has no plan
  ring = 1,
  direct = 2,
  doubling = 3,
  mesh = 4,
  grouped = 5,
};
inline constexpr std::uint8_t kLastPlan = 5;
[[nodiscard]] const char* plan_name(Plan plan);

enum class DType : std::uint8_t {
  f32 = 1,
  f64 = 2,
  f16 = 3,
  bf16 = 4,
  i8 = 5,
  u8 = 6,
  i32 = 7,
  i64 = 8,
};
inline constexpr std::uint8_t kLastDType = 8;
[[nodiscard]] std::size_t dtype_bytes(DType dtype);
[[nodiscard]] bool is_floating(DType dtype);

enum class Reduction : std::uint8_t { none = 0, sum = 1, avg = 2, min = 3, max = 4, product = 5 };
inline constexpr std::uint8_t kLastReduction = 5;

struct OpDescription {
  OpKind kind = OpKind::barrier;
  Plan plan = Plan::none;
  DType dtype = DType::f32;
  Reduction reduction = Reduction::none;
  CodecId codec = CodecId::fp32;
  Rounding rounding = Rounding::nearest;
  Rank root = 0;            // broadcast: the root; send: the sender
  std::uint64_t count = 0;  // elements, as OpRequest::count
  std::uint32_t chunk_bytes = 0;
  double weight = 1;         // the sender's own: 0 when it contributes nothing; finite
  std::uint64_t digest = 0;  // of what else must agree: the counts of an all-gather
  std::uint64_t note = 0;    // the sender's own, for its caller's peers

  // Whether two members mean the same op. Their weights and notes may differ.
  [[nodiscard]] bool same_op(const OpDescription& other) const;
  bool operator==(const OpDescription&) const = default;
};
inline constexpr std::size_t kDescriptionBytes = 48;
using DescriptionBytes = std::array<std::byte, kDescriptionBytes>;
[[nodiscard]] DescriptionBytes encode_description(const OpDescription& description);
Result<OpDescription> parse_description(std::span<const std::byte> bytes);

}  // namespace reef
