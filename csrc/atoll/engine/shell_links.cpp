// The shell's side of links and handshakes.
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "atoll/base/endian.h"
#include "atoll/engine/shell.h"
#include "atoll/net/fd.h"
#include "atoll/net/lookup.h"
#include "atoll/net/path.h"
#include "atoll/net/stream_connection.h"
#include "atoll/topology/connections.h"
#include "atoll/topology/topology.h"

namespace reef {

namespace {

// How long a link that this side has ended may take to send what is queued.
constexpr Nanos kLeavePatience = kSecond;

// Two connections with BBR fill a path as well as one; each more only makes the queues overflow.
constexpr std::uint32_t kMostByBbr = 2;

bool sends_by_bbr(const std::string& congestion) {
  if (congestion == kAutomatic) return has_congestion("bbr");
  if (!congestion.empty()) return congestion == "bbr";
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return fd.valid() && congestion_of(fd.get()) == "bbr";
}

}  // namespace

Link* Shell::link_to(const PeerId& peer) {
  const auto at = peers_.find(peer);
  return at == peers_.end() ? nullptr : at->second.link.get();
}

// How many a new link to the peer is to have; 0: what its round trip asks for.
std::uint32_t Shell::connections_to(const PeerId& peer) {
  if (options_.connections != 0) {
    return options_.connections;
  }
  const View& view = core_.view();
  const std::optional<Rank> mine = view.rank_of(options_.self);
  const std::optional<Rank> other = view.rank_of(peer);
  if (!view.topology || view.topology->members != view.size() || !mine || !other) {
    return 0;
  }
  const double rtt_s = view.topology->link(*mine, *other).rtt_s;
  const std::uint32_t by_round_trip =
      std::min(connections_from_round_trip(rtt_s), most_connections());
  const std::uint32_t by_windows =
      connections_between(*view.topology, *mine, *other, send_window());
  return std::max(by_round_trip, std::min(by_windows, share_of_connections()));
}

// Of one link: many peers share what an engine may have.
std::uint32_t Shell::share_of_connections() const {
  const std::size_t share = kConnectionsOfAll / std::max<std::size_t>(1, peers_.size());
  return static_cast<std::uint32_t>(std::clamp<std::size_t>(
      share, limits::kUsualConnections, limits::kMaxConnectionsPerLink));
}

// That its round trip alone may ask for.
std::uint32_t Shell::most_connections() {
  if (!by_bbr_) by_bbr_ = sends_by_bbr(options_.congestion);
  return *by_bbr_ ? std::min(share_of_connections(), kMostByBbr) : share_of_connections();
}

// ---- commands -----------------------------------------------------------------------------------

void Shell::handle(ExpectCommand& command) {
  Peer& peer = peers_[command.peer];
  if (!command.endpoints.empty()) {
    peer.endpoints = std::move(command.endpoints);
  }
  if (!command.names.empty()) {
    peer.names = std::move(command.names);
  }
  reconsider_ = true;
}

void Shell::handle(DialCommand& command) {
  Peer& peer = peers_[command.peer];
  if (!command.detour) {
    peer.endpoints = command.endpoints;
  }
  if (!command.names.empty()) {
    peer.names = std::move(command.names);
  }
  if (!peer.link) {
    dial(command.peer, command.endpoints, std::move(command.detour));
  }
}

void Shell::handle(DropCommand& command) {
  const auto at = peers_.find(command.peer);
  if (at == peers_.end()) {
    return;
  }
  const bool dialling = cancel_dial(command.peer);
  relay_->cut_off(command.peer);
  let_go(at->second);
  std::unique_ptr<Link> link = std::move(at->second.link);
  const bool up = link != nullptr;
  peers_.erase(at);
  if (up) {
    core_.link_down(command.peer, monotonic_now());
    fetcher_.link_down(command.peer);
    prober_.link_down(command.peer);
    probe_answers_.link_down(command.peer);
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
  Link* link = at->second.link.get();
  if (link != nullptr && (at->second.nonce == nonce || link->connections() > 0)) {
    // A new link while the old one is up: the old one's loss will be noticed, or it is a mistake.
    return at->second.nonce == nonce ? Welcome::known : Welcome::later;
  }
  if (link != nullptr) {  // who begins anew will mend nothing
    link->fail(LinkEnd::reset, "the peer has lost the link, and begins anew");
  }
  // When both dial each other, the link that the lower id dials is the one, if it gets that far.
  const bool mine_first = in_contact(peer) && options_.self < peer;
  return mine_first ? Welcome::later : Welcome::yes;
}

bool Shell::may_be(const PeerId& peer, const std::string& holder) const {
  const auto at = peers_.find(peer);
  if (!tls_ || at == peers_.end() || at->second.names.empty()) {
    return true;
  }
  const Names& names = at->second.names;
  return std::find(names.begin(), names.end(), holder) != names.end();
}

void Shell::impostor(const std::string& message) {
  ++impostors_;
  refused(message);
}

void Shell::refused(const std::string& message) {
  const Nanos now = monotonic_now();
  if (refused_told_ == kNever || now - refused_told_ >= limits::kRefusedEvery) {
    refused_told_ = now;
    events_.push(Refused{message});
  }
}

void Shell::accepted(const PeerId& peer, const Hello& ack, Streams streams) {
  cancel_dial(peer);
  establish(peer, ack, std::move(streams), {});
  Peer& one = peers_.at(peer);
  one.relay = std::exchange(one.called, std::nullopt);
}

void Shell::dialled(const PeerId& peer, const Hello& ack, Streams streams, const Route& route) {
  establish(peer, ack, std::move(streams), {route});
  if (route.detour) {
    peers_.at(peer).relay = route.detour->relay;
  }
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

std::unique_ptr<Connection> Shell::connection_over(std::unique_ptr<Stream> stream,
                                                  bool checksums) const {
  tune(stream->fd(), options_.silence, options_.keepalive, options_.congestion);
  return std::make_unique<StreamConnection>(std::move(stream), checksums);
}

void Shell::establish(const PeerId& id, const Hello& ack, Streams streams,
                      std::vector<Route> route) {
  const bool checksums = (ack.flags & kHelloChecksums) != 0;
  std::vector<std::unique_ptr<Connection>> connections;
  for (auto& stream : streams) {
    connections.push_back(connection_over(std::move(stream), checksums));
  }
  establish(id, ack.nonce, tls_ ? Transport::tls : Transport::tcp, std::move(connections));
  peers_.at(id).route = std::move(route);
  peers_.at(id).checksums = checksums;
}

void Shell::establish(const PeerId& id, const Nonce& nonce, Transport transport,
                      std::vector<std::unique_ptr<Connection>> connections) {
  Peer& peer = peers_.at(id);
  check(!peer.link, "Shell::establish: there is a link already");
  const LinkTiming timing{options_.heartbeat, options_.silence, options_.repair_grace};
  auto link = Link::create(*poller_, id, std::move(connections), timing, *this);
  if (!link) {
    events_.push(LinkDown{id, LinkEnd::unreachable, link.error().message});
    return;
  }
  peer.link = std::move(link.value());
  peer.nonce = nonce;
  peer.transport = transport;
  peer.route.clear();
  peer.relay.reset();
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
  peer.past_retransmitted += link.figures().retransmitted;
  let_go(peer);
  dialer_->cancel(id);
  graveyard_.push_back(std::move(peer.link));
  protocol_errors_ += reason == LinkEnd::protocol ? 1 : 0;
  core_.link_down(id, now);
  fetcher_.link_down(id);
  prober_.link_down(id);
  probe_answers_.link_down(id);
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
    case FrameType::relay_call: heard_call(link.peer(), payload); break;
    case FrameType::probe: status = answer_probe(link, header); break;
    case FrameType::probe_reply: status = end_probe(link, header, payload); break;
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
    TcpFigures figures;
    if (peer.link) {
      tally += peer.link->tally(now);
      figures = peer.link->figures();
    }
    stats.links.push_back(LinkStats{.peer = id,
                                    .up = peer.link != nullptr,
                                    .relay = peer.link ? peer.relay : std::nullopt,
                                    .transport = peer.link ? peer.transport : Transport::none,
                                    .connections = peer.link ? peer.link->connections() : 0,
                                    .expected_bytes_per_s = peer.link ? peer.link->expected_bytes_per_s() : 0,
                                    .delivered_bytes_per_s = peer.link ? peer.link->delivered_bytes_per_s() : 0,
                                    .pace_bytes_per_s = peer.link ? peer.link->pace_bytes_per_s() : 0,
                                    .repairs = tally.repairs,
                                    .damaged_frames = tally.damaged,
                                    .sent_bytes = tally.sent_bytes,
                                    .received_bytes = tally.received_bytes,
                                    .sending = tally.sending,
                                    .receiving = tally.receiving,
                                    .round_trip = figures.round_trip,
                                    .retransmitted = peer.past_retransmitted + figures.retransmitted});
  }
  stats.core = core_.tally();
  Rejections rejections = acceptor_->rejections();
  if (local_acceptor_) {
    rejections += local_acceptor_->rejections();
  }
  stats.shared_memory_failures = local_dialer_ ? local_dialer_->failures() : 0;
  stats.rejected_bad_hello = rejections.bad_hello;
  stats.rejected_garbage = rejections.garbage;
  stats.rejected_timeout = rejections.timeout;
  stats.rejected_overload = rejections.overload;
  stats.rejected_tls = rejections.tls;
  stats.rejected_name = rejections.name + impostors_;
  stats.protocol_errors = protocol_errors_;
  stats.donated_bytes = donated_bytes_;
  stats.relay = relay_->tally();
  return stats;
}

}  // namespace reef
