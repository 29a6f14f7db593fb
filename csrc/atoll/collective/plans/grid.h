// How a vector is cut: into segments (whose bounds are given), and each segment into chunks; and how
// long a chunk is on the wire. A value; any thread.
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
  // `bounds` in elements, segments + 1 of them. With a codec, all but the last are whole blocks.
  Grid(std::vector<std::uint64_t> bounds, std::size_t element_bytes, std::uint32_t chunk_bytes,
       CodecId codec = CodecId::fp32);

  [[nodiscard]] Rank segments() const { return static_cast<Rank>(bounds_.size() - 1); }
  // In bytes of the vector.
  [[nodiscard]] std::uint64_t begin(Rank segment) const { return bounds_[segment]; }
  [[nodiscard]] std::uint64_t end(Rank segment) const { return bounds_[segment + 1]; }
  [[nodiscard]] std::size_t chunks(Rank segment) const {
    const std::uint64_t length = end(segment) - begin(segment);
    return static_cast<std::size_t>((length + chunk_bytes_ - 1) / chunk_bytes_);
  }
  // Chunks of the longest segment.
  [[nodiscard]] std::size_t stride() const { return stride_; }
  // One slot a chunk, some unused.
  [[nodiscard]] std::size_t slots() const { return stride_ * segments(); }

  struct Range {
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };
  [[nodiscard]] Range range(Rank segment, std::size_t chunk) const {
    const std::uint64_t offset = begin(segment) + chunk * std::uint64_t{chunk_bytes_};
    return {offset, std::min<std::uint64_t>(chunk_bytes_, end(segment) - offset)};
  }
  // The payload of so much of the vector.
  [[nodiscard]] std::uint32_t wire_bytes(std::uint64_t length) const {
    return static_cast<std::uint32_t>(
        codec_ == CodecId::fp32 ? length : encoded_bytes(codec_, length / sizeof(float)));
  }
  // The chunk's number in its segment, if (offset, length) is exactly one.
  [[nodiscard]] std::optional<std::size_t> find(Rank segment, const ChunkName& name) const;
  // The number of the chunk of `segment` that begins at `offset`, which is one.
  [[nodiscard]] std::size_t number_at(Rank segment, std::uint64_t offset) const {
    return static_cast<std::size_t>((offset - begin(segment)) / chunk_bytes_);
  }
  [[nodiscard]] std::size_t slot(Rank segment, std::size_t chunk) const {
    return segment * stride_ + chunk;
  }

 private:
  std::vector<std::uint64_t> bounds_;  // bytes
  std::uint32_t chunk_bytes_;
  CodecId codec_;
  std::size_t stride_ = 0;
};

// Copies unless the payload was received in place.
void settle_in(std::span<std::byte> place, std::span<const std::byte> payload);

}  // namespace reef
