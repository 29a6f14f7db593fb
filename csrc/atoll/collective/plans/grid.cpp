#include "atoll/collective/plans/grid.h"

#include <cstring>

#include "atoll/base/result.h"

namespace reef {

Grid::Grid(std::vector<std::uint64_t> bounds, std::size_t element_bytes, std::uint32_t chunk_bytes,
           CodecId codec)
    : bounds_(std::move(bounds)), chunk_bytes_(chunk_bytes), codec_(codec) {
  if (codec != CodecId::fp32) {  // whole blocks
    constexpr std::uint32_t kBlockBytes = kCodecBlock * sizeof(float);
    chunk_bytes_ = std::max(chunk_bytes / kBlockBytes, 1u) * kBlockBytes;
  }
  std::uint64_t longest = 0;
  for (std::uint64_t& bound : bounds_) bound *= element_bytes;  // at most 2^40
  for (Rank segment = 0; segment < segments(); ++segment) {
    longest = std::max(longest, end(segment) - begin(segment));
  }
  stride_ = static_cast<std::size_t>((longest + chunk_bytes_ - 1) / chunk_bytes_);
}

std::optional<std::size_t> Grid::find(Rank segment, const ChunkName& name) const {
  const std::uint64_t first = begin(segment);
  if (name.offset < first || name.offset >= end(segment)) return std::nullopt;
  if ((name.offset - first) % chunk_bytes_ != 0) return std::nullopt;
  const std::size_t chunk = number_at(segment, name.offset);
  if (wire_bytes(range(segment, chunk).length) != name.length) return std::nullopt;
  return chunk;
}

void settle_in(std::span<std::byte> place, std::span<const std::byte> payload) {
  if (payload.data() == place.data() || payload.empty()) return;
  std::memcpy(place.data(), payload.data(), payload.size());
}

std::uint64_t granule_of(CodecId codec) { return codec == CodecId::fp32 ? 1 : kCodecBlock; }

std::vector<std::uint64_t> equal_parts(std::uint64_t elements, Rank members,
                                       std::uint64_t granule) {
  // At most 2^40 elements times 2^12 members: no overflow.
  std::vector<std::uint64_t> bounds(members + 1);
  for (Rank part = 0; part < members; ++part) {
    bounds[part] = elements * part / members / granule * granule;
  }
  bounds[members] = elements;
  return bounds;
}

std::vector<std::uint64_t> weighted_parts(std::uint64_t elements, std::span<const double> weights,
                                          std::uint64_t granule) {
  double total = 0;
  for (const double weight : weights) total += weight;
  std::vector<std::uint64_t> bounds(weights.size() + 1, 0);
  double before = 0;
  for (std::size_t part = 1; part < weights.size(); ++part) {
    before += weights[part - 1];
    const double share = std::min(1.0, before / total);
    const auto bound = static_cast<std::uint64_t>(static_cast<double>(elements) * share);
    bounds[part] = std::max(bounds[part - 1], std::min(bound, elements) / granule * granule);
  }
  bounds.back() = elements;
  return bounds;
}

}  // namespace reef
