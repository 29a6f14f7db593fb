// The shell's side of relays: what this engine carries for others, and calls of others that carry for it.
#include <algorithm>
#include <utility>

#include "atoll/engine/shell.h"

namespace reef {

void Shell::handle(CarryCommand& command) {
  if (command.ticket) {
    relay_->allow(command.one, command.other, *command.ticket);
  } else {
    relay_->forbid(command.one, command.other);
  }
}

// ---- this engine is the relay -------------------------------------------------------------------

void Shell::relay(FrameType what, const Hello& hello, Fd socket) {
  if (what == FrameType::relay_ask) {
    relay_->ask(hello, std::move(socket));
  } else {
    relay_->answer(hello, std::move(socket));
  }
}

bool Shell::call(const PeerId& target, const PeerId& asker, const Nonce& nonce) {
  Link* link = link_to(target);
  if (link == nullptr) {
    return false;
  }
  FrameHeader header;
  header.type = FrameType::relay_call;
  header.length = static_cast<std::uint32_t>(kRelayCallBytes);
  OutFrame frame;
  frame.header = encode_header(header);
  frame.owned.resize(kRelayCallBytes);
  for (std::size_t i = 0; i < nonce.size(); ++i) {
    frame.owned[i] = static_cast<std::byte>(asker.bytes[i]);
    frame.owned[asker.bytes.size() + i] = static_cast<std::byte>(nonce[i]);
  }
  frame.payload = frame.owned;
  link->send_control(std::move(frame));
  return true;
}

// ---- another one is -----------------------------------------------------------------------------

// Whoever asks may not be expected yet: the acceptor holds its HELLO until it is, as it does for all.
void Shell::heard_call(const PeerId& relay, std::span<const std::byte> payload) {
  PeerId asker;
  Nonce nonce{};
  for (std::size_t i = 0; i < nonce.size(); ++i) {
    asker.bytes[i] = std::to_integer<std::uint8_t>(payload[i]);
    nonce[i] = std::to_integer<std::uint8_t>(payload[asker.bytes.size() + i]);
  }
  const Peer& through = peers_.at(relay);
  if (const auto at = peers_.find(asker); at != peers_.end()) {
    at->second.called = relay;
  }
  auto detour =
      std::make_shared<const Detour>(Detour{relay, answer_relay(options_.self, asker, nonce)});
  dialer_->answer(asker, std::move(detour), through.route, through.endpoints, monotonic_now());
}

void Shell::answered(Fd socket) { acceptor_->take(std::move(socket), monotonic_now()); }

}  // namespace reef
