// How a vector is cut: into segments (balanced by elements), and each segment into chunks. A value;
// any thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/collective/plans/plan.h"

namespace reef {

class Grid {
 public:
  static constexpr std::uint64_t kElementBytes = 4;  // fp32

  Grid(std::uint64_t bytes, Rank segments, std::uint32_t chunk_bytes)
      : elements_(bytes / kElementBytes), segments_(segments), chunk_bytes_(chunk_bytes) {
    // The longest segment has floor or ceil(elements / segments) elements.
    const std::uint64_t longest = (elements_ + segments - 1) / segments * kElementBytes;
    stride_ = static_cast<std::size_t>((longest + chunk_bytes - 1) / chunk_bytes);
  }

  // At most 2^38 elements times 2^12 members: no overflow.
  [[nodiscard]] std::uint64_t begin(Rank segment) const {
    return elements_ * segment / segments_ * kElementBytes;
  }
  [[nodiscard]] std::uint64_t end(Rank segment) const { return begin(segment + 1); }
  [[nodiscard]] std::size_t chunks(Rank segment) const {
    const std::uint64_t length = end(segment) - begin(segment);
    return static_cast<std::size_t>((length + chunk_bytes_ - 1) / chunk_bytes_);
  }
  // Chunks of the longest segment.
  [[nodiscard]] std::size_t stride() const { return stride_; }
  // One slot a chunk, some unused.
  [[nodiscard]] std::size_t slots() const { return stride_ * segments_; }

  struct Range {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };
  [[nodiscard]] Range range(Rank segment, std::size_t chunk) const {
    const std::uint64_t offset = begin(segment) + chunk * std::uint64_t{chunk_bytes_};
    return {offset, std::min<std::uint64_t>(chunk_bytes_, end(segment) - offset)};
  }
  // The chunk's number in its segment, if (offset, length) is exactly one.
  [[nodiscard]] std::optional<std::size_t> find(Rank segment, const ChunkName& name) const {
    const std::uint64_t first = begin(segment);
    if (name.offset < first || name.offset >= end(segment)) return std::nullopt;
    if ((name.offset - first) % chunk_bytes_ != 0) return std::nullopt;
    const auto chunk = static_cast<std::size_t>((name.offset - first) / chunk_bytes_);
    if (range(segment, chunk).length != name.length) return std::nullopt;
    return chunk;
  }
  [[nodiscard]] std::size_t slot(Rank segment, std::size_t chunk) const {
    return segment * stride_ + chunk;
  }

 private:
  std::uint64_t elements_;
  Rank segments_;
  std::uint32_t chunk_bytes_;
  std::size_t stride_ = 0;
};

// The numbers of a payload, wherever it lies: a copy in `scratch` when it is not aligned.
[[nodiscard]] std::span<const float> as_floats(std::span<const std::byte> payload,
                                               std::vector<float>& scratch);
[[nodiscard]] std::span<float> as_floats(std::span<std::byte> aligned);
// Copies unless the payload was received in place.
void settle_in(std::span<std::byte> place, std::span<const std::byte> payload);

}  // namespace reef
