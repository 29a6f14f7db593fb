// Packets as a TUN device with a virtio header hands them over: an IPv4 packet, or many segments of
// one TCP stream as one. Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace wan {

// linux/virtio_net.h: flags, type and size of the segmentation that is left to do.
inline constexpr std::size_t kVirtioBytes = 10;
// The longest that a device hands over.
inline constexpr std::size_t kMostPacketBytes = kVirtioBytes + 65'535;

struct PacketView {
  std::uint32_t from = 0;  // addresses, in host order
  std::uint32_t to = 0;
  std::uint32_t header_bytes = 0;  // of IP and TCP, in each segment
  std::uint32_t payload_bytes = 0;
  std::uint32_t segment_payload = 0;  // of each segment but the last; all, if there is only one

  [[nodiscard]] std::uint32_t segments() const {
    return segment_payload == 0 ? 1 : (payload_bytes + segment_payload - 1) / segment_payload;
  }
  [[nodiscard]] std::uint32_t segment_bytes() const { return header_bytes + segment_payload; }
  [[nodiscard]] std::uint32_t last_bytes() const {
    return header_bytes + payload_bytes - (segments() - 1) * segment_payload;
  }
};

// nullopt: nothing that goes over a link here (IPv6, a fragment of a header).
[[nodiscard]] std::optional<PacketView> look_at(std::span<const std::byte> packet);
// Segments [first, first + count) of the packet, as one. The TCP checksum stays as partial as it
// was: the kernel that takes it in sees that it was never on a wire.
[[nodiscard]] std::vector<std::byte> slice(std::span<const std::byte> packet,
                                           const PacketView& view, std::uint32_t first,
                                           std::uint32_t count);

}  // namespace wan
