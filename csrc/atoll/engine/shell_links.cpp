// The shell's side of links and handshakes.
#include <algorithm>
#include <utility>

#include "atoll/base/endian.h"
#include "atoll/engine/shell.h"
#include "atoll/net/lookup.h"

namespace reef {

namespace {

// How long a link that this side has ended may take to send what is queued.
constexpr Nanos kLeavePatience = kSecond;

}  // namespace

Link* Shell::link_to(const PeerId& peer) {
  const auto at = peers_.find(peer);
  return at == peers_.end() ? nullptr : at->second.link.get();
}

// ---- commands -----------------------------------------------------------------------------------

void Shell::handle(ExpectCommand& command) {
  peers_[command.peer];
  reconsider_ = true;
}

void Shell::handle(DialCommand& command) {
  const Peer& peer = peers_[command.peer];
  if (!peer.link) {
    dialer_->dial(command.peer, command.host, command.port, monotonic_now());
  }
}

void Shell::handle(DropCommand& command) {
  const auto at = peers_.find(command.peer);
  if (at == peers_.end()) {
    return;
  }
  const bool dialling = dialer_->cancel(command.peer);
  std::unique_ptr<Link> link = std::move(at->second.link);
  const bool up = link != nullptr;
  peers_.erase(at);
  if (up) {
    core_.link_down(command.peer, monotonic_now());
    fetcher_.link_down(command.peer);
    leave(std::move(link), kLeavePatience);
  }
  if (up || dialling) {
    events_.push(LinkDown{command.peer, LinkEnd::dropped, "this peer dropped the link"});
  }
}

void Shell::handle(ResolvedCommand& command) {
  dialer_->resolved(command.ticket, std::move(command.addresses), monotonic_now());
}

// ---- handshakes ---------------------------------------------------------------------------------

AcceptorOwner::Welcome Shell::welcome(const PeerId& peer, const Nonce& nonce) {
  const auto at = peers_.find(peer);
  if (at == peers_.end()) {
    return Welcome::later;
  }
  if (at->second.link) {
    // A new link while the old one is up: the old one's loss will be noticed, or it is a mistake.
    return at->second.nonce == nonce ? Welcome::known : Welcome::later;
  }
  // When both dial each other, the link that the lower id dials is the one.
  const bool mine_first = dialer_->dialling(peer) && options_.self < peer;
  return mine_first ? Welcome::later : Welcome::yes;
}

void Shell::accepted(const PeerId& peer, const Nonce& nonce, std::vector<Fd> sockets) {
  dialer_->cancel(peer);
  establish(peer, nonce, std::move(sockets));
}

void Shell::dialled(const PeerId& peer, const Nonce& nonce, std::vector<Fd> sockets) {
  establish(peer, nonce, std::move(sockets));
  reconsider_ = true;
}

void Shell::unreachable(const PeerId& peer, const std::string& message) {
  events_.push(LinkDown{peer, LinkEnd::unreachable, message});
  reconsider_ = true;
}

void Shell::look_up(std::uint64_t ticket, const std::string& host, std::uint16_t port) {
  look_up_detached(host, port,
                   [mailbox = mailbox_, ticket](Result<std::vector<Address>> addresses) {
                     mailbox->post(ResolvedCommand{ticket, std::move(addresses)});
                   });
}

// ---- links --------------------------------------------------------------------------------------

void Shell::establish(const PeerId& id, const Nonce& nonce, std::vector<Fd> sockets) {
  Peer& peer = peers_.at(id);
  check(!peer.link, "Shell::establish: there is a link already");
  for (const Fd& socket : sockets) {
    tune(socket.get(), options_.silence);
  }
  auto link = Link::create(*poller_, id, std::move(sockets),
                           LinkTiming{options_.heartbeat, options_.silence}, *this);
  if (!link) {
    events_.push(LinkDown{id, LinkEnd::unreachable, link.error().message});
    return;
  }
  peer.link = std::move(link.value());
  peer.nonce = nonce;
  links_due_ = 0;
  events_.push(LinkUp{id});
}

void Shell::leave(std::unique_ptr<Link> link, Nanos patience) {
  link->leave();
  link->depart();
  leaving_.push_back(Leaving{std::move(link), monotonic_now() + patience});
  links_due_ = 0;
}

void Shell::ended(Link& link, LinkEnd reason, const std::string& message) {
  const PeerId id = link.peer();
  Peer& peer = peers_.at(id);
  check(peer.link.get() == &link, "Shell::ended: an unknown link ended");
  const Nanos now = monotonic_now();
  peer.past += link.tally(now);
  graveyard_.push_back(std::move(peer.link));
  protocol_errors_ += reason == LinkEnd::protocol ? 1 : 0;
  core_.link_down(id, now);
  fetcher_.link_down(id);
  events_.push(LinkDown{id, reason, "link to peer " + id.shorthand() + ": " + message});
  reconsider_ = true;
}

Destination Shell::place(Link& link, const FrameHeader& header) {
  Destination destination;
  if (header.type == FrameType::data) {
    destination.span = core_.place(link.peer(), header, destination.op);
  } else if (header.type == FrameType::state_data) {
    destination = fetcher_.place(link.peer(), header);
  }
  return destination;
}

Status Shell::deliver(Link& link, const FrameHeader& header, std::span<const std::byte> payload) {
  Status status = Unit{};
  switch (header.type) {
    case FrameType::state_request: status = serve(link, header, payload); break;
    case FrameType::state_data:
    case FrameType::state_nack: status = fetcher_.deliver(link.peer(), header, payload); break;
    default: status = core_.deliver(link.peer(), header, payload, monotonic_now()); break;
  }
  pump();
  if (!status.ok()) {
    return Error{Code::protocol, 0, status.error().message};
  }
  return status;
}

Status Shell::serve(Link& link, const FrameHeader& header, std::span<const std::byte> payload) {
  const auto length = load_le<std::uint64_t>(payload.data());
  auto answer = donor_.answer(header, length, link.donations());
  if (auto* donation = std::get_if<Donation>(&answer)) {
    donated_bytes_ += donation->rest.size();
    link.donate(std::move(*donation));
  } else {
    link.send_control(std::move(std::get<OutFrame>(answer)));
  }
  return Unit{};
}

EngineStats Shell::stats() const {
  EngineStats stats;
  const Nanos now = monotonic_now();
  for (const auto& [id, peer] : peers_) {
    LinkTally tally = peer.past;
    if (peer.link) {
      tally += peer.link->tally(now);
    }
    stats.links.push_back(LinkStats{.peer = id,
                                    .up = peer.link != nullptr,
                                    .connections = peer.link ? peer.link->connections() : 0,
                                    .sent_bytes = tally.sent_bytes,
                                    .received_bytes = tally.received_bytes,
                                    .sending = tally.sending,
                                    .receiving = tally.receiving});
  }
  stats.core = core_.tally();
  const Rejections& rejections = acceptor_->rejections();
  stats.rejected_bad_hello = rejections.bad_hello;
  stats.rejected_garbage = rejections.garbage;
  stats.rejected_timeout = rejections.timeout;
  stats.rejected_overload = rejections.overload;
  stats.protocol_errors = protocol_errors_;
  stats.donated_bytes = donated_bytes_;
  return stats;
}

}  // namespace reef
