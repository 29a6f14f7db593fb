// The shell's side of links to peers on the same host: shared memory first, the network if that
// comes to nothing.
#include <algorithm>
#include <utility>

#include "atoll/engine/shell.h"
#include "atoll/net/local_socket.h"
#include "atoll/net/shm_connection.h"

namespace reef {

// What fails here is left out: the network will do.
void Shell::meet_locally(std::uint16_t port) {
  LocalDialer::Options dialing;
  dialing.self = options_.self;
  dialing.secret = options_.secret;
  // A peer that holds our HELLO until we are welcome may take long, but enough must be left of the
  // dial's time to try the network.
  dialing.patience = std::min(options_.handshake_timeout, options_.dial_timeout / 4);
  LocalDialerOwner& owner = *this;
  local_dialer_ = std::make_unique<LocalDialer>(*poller_, dialing, owner);
  auto listener = listen_locally({options_.self, port});
  if (!listener) {
    return;
  }
  const Acceptor::Options accepting{options_.self, options_.secret, options_.handshake_timeout};
  auto acceptor =
      LocalAcceptor::create(*poller_, std::move(listener.value()), accepting, *this);
  if (acceptor) {
    local_acceptor_ = std::move(acceptor.value());
  }
}

void Shell::dial(const PeerId& peer, const Endpoints& endpoints,
                 std::shared_ptr<const Detour> detour) {
  const Nanos now = monotonic_now();
  cancel_dial(peer);
  if (detour) {
    dialer_->dial(peer, endpoints, connections_to(peer), most_connections(), now, now,
                  std::move(detour));
    reconsider_ = true;
    return;
  }
  const DialTarget target{peer, endpoints, now};
  if (local_dialer_) {
    local_dialer_->dial(target, now);
  } else {
    not_local(target, "");
  }
}

void Shell::not_local(const DialTarget& target, const std::string& why) {
  if (!why.empty()) {
    not_shared(target.peer, why);
  }
  dialer_->dial(target.peer, target.endpoints, connections_to(target.peer),
                most_connections(), target.began, monotonic_now());
  reconsider_ = true;
}

void Shell::not_shared(const PeerId& peer, const std::string& why) {
  const Nanos now = monotonic_now();
  if (not_local_told_ == kNever || now - not_local_told_ >= limits::kRefusedEvery) {
    not_local_told_ = now;
    events_.push(NotLocal{peer, "peer " + peer.shorthand() + " of this host is reached over the " +
                                    "network, not through shared memory: " + why});
  }
}

bool Shell::in_contact(const PeerId& peer) const {
  return dialer_->in_contact(peer) || (local_dialer_ && local_dialer_->dialling(peer));
}

bool Shell::cancel_dial(const PeerId& peer) {
  const bool locally = local_dialer_ && local_dialer_->cancel(peer);
  return dialer_->cancel(peer) || locally;
}

void Shell::accepted(const PeerId& peer, const Nonce& nonce, LocalChannel channel) {
  cancel_dial(peer);
  establish(peer, nonce, std::move(channel));
}

void Shell::dialled(const PeerId& peer, const Nonce& nonce, LocalChannel channel) {
  establish(peer, nonce, std::move(channel));
  reconsider_ = true;
}

void Shell::establish(const PeerId& id, const Nonce& nonce, LocalChannel channel) {
  LifeWord& mine = channel.memory.life(channel.dialled ? 0 : 1);
  LifeWord& other = channel.memory.life(channel.dialled ? 1 : 0);
  std::vector<std::unique_ptr<Connection>> connections;
  connections.push_back(std::make_unique<ShmConnection>(std::move(channel)));
  establish(id, nonce, Transport::shm, std::move(connections));
  Peer& peer = peers_.at(id);
  if (peer.link && lives_) {
    lives_->hold(mine);
    peer.life = &mine;
    peer.watch = deaths_ ? deaths_->watch(other) : 0;
  }
}

void Shell::let_go(Peer& peer) {
  if (LifeWord* word = std::exchange(peer.life, nullptr)) {
    lives_->release(*word);
  }
  if (const std::uint64_t ticket = std::exchange(peer.watch, 0); ticket != 0) {
    deaths_->forget(ticket);
  }
}

void Shell::handle(DiedCommand& command) {
  for (auto& [id, peer] : peers_) {
    if (peer.watch == command.ticket && peer.link) {
      peer.link->fail(LinkEnd::died, "its process has died");
      return;
    }
  }
}

}  // namespace reef
