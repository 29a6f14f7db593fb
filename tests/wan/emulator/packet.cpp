#include "packet.h"

#include <algorithm>
#include <cstring>

namespace wan {

namespace {

constexpr std::size_t kLeastIp = 20;
constexpr std::size_t kLeastTcp = 20;
constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kFin = 0x01;
constexpr std::uint8_t kPush = 0x08;

// virtio_net_hdr of linux/virtio_net.h, which is not C++; in the machine's byte order.
struct VirtioHeader {
  std::uint8_t flags;
  std::uint8_t gso_type;
  std::uint16_t header_bytes;
  std::uint16_t gso_size;
  std::uint16_t checksum_start;
  std::uint16_t checksum_offset;
};
static_assert(sizeof(VirtioHeader) == kVirtioBytes);
constexpr std::uint8_t kGsoNone = 0;
constexpr std::uint8_t kGsoTcp4 = 1;
constexpr std::uint8_t kGsoEcn = 0x80;

std::uint8_t u8(const std::byte* at) { return std::to_integer<std::uint8_t>(*at); }
std::uint16_t u16(const std::byte* at) {
  return static_cast<std::uint16_t>((u8(at) << 8) | u8(at + 1));
}
std::uint32_t u32(const std::byte* at) {
  return (static_cast<std::uint32_t>(u16(at)) << 16) | u16(at + 2);
}
void put16(std::byte* at, std::uint32_t value) {
  at[0] = static_cast<std::byte>((value >> 8) & 0xff);
  at[1] = static_cast<std::byte>(value & 0xff);
}
void put32(std::byte* at, std::uint32_t value) {
  put16(at, value >> 16);
  put16(at + 2, value & 0xffff);
}

// Of an IP header (RFC 1071).
void put_checksum(std::byte* ip, std::size_t bytes) {
  put16(ip + 10, 0);
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes; i += 2) sum += u16(ip + i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  put16(ip + 10, ~sum & 0xffff);
}

VirtioHeader virtio_of(std::span<const std::byte> packet) {
  VirtioHeader header{};
  std::memcpy(&header, packet.data(), sizeof header);
  return header;
}

}  // namespace

std::optional<PacketView> look_at(std::span<const std::byte> packet) {
  if (packet.size() < kVirtioBytes + kLeastIp) return std::nullopt;
  const VirtioHeader virtio = virtio_of(packet);
  const std::byte* ip = packet.data() + kVirtioBytes;
  const std::size_t bytes = packet.size() - kVirtioBytes;
  const std::size_t ip_bytes = (u8(ip) & 0x0fu) * 4u;
  if (u8(ip) >> 4 != 4 || ip_bytes < kLeastIp || ip_bytes > bytes || u16(ip + 2) != bytes) {
    return std::nullopt;
  }
  PacketView view;
  view.from = u32(ip + 12);
  view.to = u32(ip + 16);
  std::size_t header = ip_bytes;
  const bool many = (virtio.gso_type & ~kGsoEcn) == kGsoTcp4;
  if (many) {
    if (u8(ip + 9) != kTcp || bytes < ip_bytes + kLeastTcp || virtio.gso_size == 0) {
      return std::nullopt;
    }
    header += (u8(ip + ip_bytes + 12) >> 4) * 4u;
    if (header > bytes) return std::nullopt;
  } else if (virtio.gso_type != kGsoNone) {
    return std::nullopt;
  }
  view.header_bytes = static_cast<std::uint32_t>(header);
  view.payload_bytes = static_cast<std::uint32_t>(bytes - header);
  view.segment_payload = many ? virtio.gso_size : view.payload_bytes;
  return view;
}

std::vector<std::byte> slice(std::span<const std::byte> packet, const PacketView& view,
                             std::uint32_t first, std::uint32_t count) {
  if (first == 0 && count == view.segments()) return {packet.begin(), packet.end()};
  const std::uint32_t from = first * view.segment_payload;
  const std::uint32_t until = std::min((first + count) * view.segment_payload, view.payload_bytes);
  const std::size_t header = kVirtioBytes + view.header_bytes;
  std::vector<std::byte> piece(header + until - from);
  std::copy_n(packet.begin(), header, piece.begin());
  std::copy_n(packet.begin() + static_cast<std::ptrdiff_t>(header + from), until - from,
              piece.begin() + static_cast<std::ptrdiff_t>(header));
  if (count == 1) {
    VirtioHeader virtio = virtio_of(packet);
    virtio.gso_type = kGsoNone;
    virtio.gso_size = 0;
    std::memcpy(piece.data(), &virtio, sizeof virtio);
  }
  std::byte* ip = piece.data() + kVirtioBytes;
  const std::size_t ip_bytes = (u8(ip) & 0x0fu) * 4u;
  put16(ip + 2, static_cast<std::uint32_t>(piece.size() - kVirtioBytes));
  put16(ip + 4, u16(ip + 4) + first);
  put_checksum(ip, ip_bytes);
  std::byte* tcp = ip + ip_bytes;
  put32(tcp + 4, u32(tcp + 4) + from);
  if (until < view.payload_bytes) {
    tcp[13] &= static_cast<std::byte>(~(kFin | kPush) & 0xff);
  }
  return piece;
}

}  // namespace wan
