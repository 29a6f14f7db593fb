// The shell's side of lost connections: who dials, whose attempt counts, and when it is hopeless.
//
// The side that has dialled a link dials again for each connection that is lost. The other side waits
// for it; only when all connections are lost and it knows where the peer listens does it dial as
// well, because a refused connection is the quickest proof that a process has died.
#include <utility>

#include "atoll/engine/shell.h"

namespace reef {

Repair Shell::lost(Link& link, std::uint32_t slot) {
  const PeerId& id = link.peer();
  const Peer& peer = peers_.at(id);
  links_due_ = 0;
  reconsider_ = true;  // with its last connection gone, another link may take the place of this one
  if (!peer.route.empty()) {
    to_redial_.push_back({id, slot, {}});
    return Repair::by_us;
  }
  // Through a relay the peer can only be waited for, and its own addresses cannot be reached.
  if (link.connections() > 0 || peer.endpoints.empty() || peer.relay) {
    return Repair::by_peer;
  }
  for (std::uint32_t i = 0; i < link.slots(); ++i) {
    to_redial_.push_back({id, i, {}});
  }
  return Repair::by_us;
}

void Shell::displaced(Link& link, const FrameHeader& header) {
  if (header.type == FrameType::state_data) {
    fetcher_.displaced(link.peer(), header);
  }
}

// What was noted while other calls were on the stack.
void Shell::mend() {
  for (const Gap& gap : std::exchange(to_redial_, {})) {
    const auto at = peers_.find(gap.peer);
    if (at == peers_.end() || !at->second.link || !at->second.link->is_empty(gap.slot)) {
      continue;
    }
    dialer_->redial(gap.peer, gap.slot, at->second.nonce, at->second.route, at->second.endpoints,
                    monotonic_now());
  }
  for (const Gap& gap : std::exchange(hopeless_, {})) {
    dialer_->cancel_repair(gap.peer, gap.slot);
    if (Link* link = link_to(gap.peer)) {
      link->give_up(gap.slot, gap.verdict);
    }
  }
}

void Shell::irreparable(const PeerId& peer, std::uint32_t slot, const std::string& message) {
  hopeless_.push_back({peer, slot, message});
}

bool Shell::describe(const PeerId& peer, std::uint32_t slot, Hello& hello) {
  Link* link = link_to(peer);
  if (link == nullptr || !link->is_empty(slot)) {
    return false;
  }
  link->describe(slot, hello);
  return true;
}

void Shell::redialled(const PeerId& peer, const Hello& ack, std::unique_ptr<Stream> stream) {
  if (Link* link = link_to(peer)) {
    link->resume(*poller_, connection_over(std::move(stream), peers_.at(peer).checksums), ack);
    links_due_ = 0;
  }
  reconsider_ = true;
}

AcceptorOwner::Answer Shell::repair(const Hello& hello, Hello& ack) {
  const auto at = peers_.find(hello.sender);
  if (at == peers_.end() || !at->second.link || at->second.nonce != hello.nonce ||
      at->second.link->slots() != hello.connections) {
    return Answer::gone;
  }
  const std::uint32_t slot = hello.connection_index;
  if (!at->second.route.empty() && dialer_->in_contact(hello.sender, slot)) {
    return Answer::later;  // when both dial, the side that has dialled the link goes first
  }
  if (!at->second.link->make_way(hello, ack)) {
    return Answer::stale;
  }
  dialer_->cancel_repair(hello.sender, slot);
  return Answer::yes;
}

void Shell::repaired(const Hello& hello, std::unique_ptr<Stream> stream) {
  if (Link* link = link_to(hello.sender)) {
    link->resume(*poller_, connection_over(std::move(stream), peers_.at(hello.sender).checksums), hello);
    links_due_ = 0;
    peers_.at(hello.sender).called.reset();
  }
}

}  // namespace reef
