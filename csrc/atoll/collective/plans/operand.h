// What a reducing plan does with numbers: a member's own contribution, others' payloads, sums. It
// knows dtype, reduction, weight and codec, so that the plans need not.
//
// Thread: the core's. Ownership: reads the setup's `in`, which outlives it. Failure: none; sizes are
// the plan's to check.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "atoll/collective/plans/plan.h"

namespace reef {

class Operand {
 public:
  explicit Operand(const PlanSetup& setup);

  [[nodiscard]] bool coded() const { return codec_.id != CodecId::fp32; }
  // This member contributes nothing.
  [[nodiscard]] bool absent() const { return weight_ == 0; }

  // Own numbers of in[offset, offset + length), ready to be sent; the identity if absent.
  [[nodiscard]] Payload own_payload(std::uint64_t offset, std::uint64_t length);
  // A sum's bytes, ready to be sent: as they lie, or encoded. `salt` tells encodings of the same
  // place apart.
  [[nodiscard]] Payload sum_payload(std::span<const std::byte> sum, std::uint64_t offset,
                                    std::uint32_t salt);
  // The same for a result that all must hold alike: what is lost in encoding is lost here, too.
  [[nodiscard]] Payload seal(std::span<std::byte> sum, std::uint64_t offset);

  // sum = own numbers at `offset`
  void put_own(std::span<std::byte> sum, std::uint64_t offset);
  // sum = payload
  void put(std::span<std::byte> sum, std::span<const std::byte> payload) const;
  // sum = sum o payload
  void add(std::span<std::byte> sum, std::span<const std::byte> payload) const;
  // sum = sum o own numbers at `offset`
  void add_own(std::span<std::byte> sum, std::uint64_t offset);
  // sum = own numbers at `offset` o payload
  void put_own_and(std::span<std::byte> sum, std::uint64_t offset,
                   std::span<const std::byte> payload);
  // sum = a o b, sums both
  void join(std::span<std::byte> sum, std::span<const std::byte> a,
            std::span<const std::byte> b) const;
  void put_identity(std::span<std::byte> sum) const;
  // All contributions are in: an average is divided. Needs all weights, if it is one.
  void finish(std::span<std::byte> sum, const Weights& weights) const;
  [[nodiscard]] bool needs_all_weights() const { return reduction_ == Reduction::avg; }

  [[nodiscard]] EncodeReport report() const { return report_; }

 private:
  [[nodiscard]] Payload encoded(std::span<const std::byte> floats, std::uint64_t offset,
                                std::uint32_t salt);
  // Own numbers, weighted; in place in `in`, or in `scratch_`.
  [[nodiscard]] std::span<const std::byte> own(std::uint64_t offset, std::uint64_t length);

  std::span<const std::byte> in_;
  DType dtype_;
  Reduction reduction_;
  Codec codec_;
  Rank self_;
  double weight_;
  EncodeReport report_;
  std::vector<std::byte> scratch_;
};

}  // namespace reef
