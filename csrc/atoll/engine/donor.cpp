#include "atoll/engine/donor.h"

#include <optional>
#include <span>

#include "atoll/base/endian.h"
#include "atoll/base/limits.h"
#include "atoll/engine/fetcher.h"

namespace reef {

namespace {

// The part of a buffer that a request names, if there is one.
std::optional<std::span<const std::byte>> part_of(const Engine::Published& state,
                                                  const FrameHeader& request,
                                                  std::uint64_t length) {
  const bool any = request.epoch == kAnyRevision && request.channel == 0;
  if ((!any && request.epoch != state.revision) || request.channel >= state.buffers.size() ||
      length > limits::kMaxStateRequestBytes) {
    return std::nullopt;
  }
  const std::span<const std::byte> buffer = state.buffers[request.channel];
  if (request.offset > buffer.size()) {
    return std::nullopt;
  }
  const auto rest = buffer.subspan(static_cast<std::size_t>(request.offset));
  if (length <= rest.size()) {
    return rest.first(static_cast<std::size_t>(length));
  }
  // The manifest's size is known to nobody who has not read it.
  return request.channel == 0 ? std::optional(rest) : std::nullopt;
}

}  // namespace

std::variant<Donation, OutFrame> Donor::answer(const FrameHeader& request, std::uint64_t length,
                                               std::size_t outstanding) const {
  FrameHeader header;
  header.channel = request.channel;
  header.sequence = request.sequence;
  header.offset = request.offset;
  header.epoch = state_ ? state_->revision : kAnyRevision;
  if (state_ && outstanding < limits::kMaxStateRequestsPerPeer) {
    if (const auto part = part_of(*state_, request, length)) {
      header.type = FrameType::state_data;
      return Donation{header, *part, state_};
    }
  }
  header.type = FrameType::state_nack;
  header.length = 8;
  OutFrame nack;
  nack.header = encode_header(header);
  nack.owned.resize(8);
  store_le(nack.owned.data(), header.epoch);
  nack.payload = nack.owned;
  return nack;
}

}  // namespace reef
