// Whose certificate a link's peer shows: an island of the job that poses as another gets nowhere.
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "certificates.h"
#include "island.h"
#include "proxy.h"
#include "raw_peer.h"

namespace reef::testing {
namespace {

const std::string kPalm = "atoll://job/island/palm";
const std::string kReef = "atoll://job/island/reef";
constexpr Ticket kTicket{1, 2, 3};

// A client that speaks TLS with a certificate of its own, and greets as whoever a test wants.
class RawTlsPeer {
 public:
  RawTlsPeer(std::uint16_t port, const Identity& own)
      : context_(SSL_CTX_new(TLS_client_method()), SSL_CTX_free), ssl_(nullptr, SSL_free) {
    SSL_CTX_use_certificate(context_.get(), own.x509());
    SSL_CTX_use_PrivateKey(context_.get(), own.private_key());
    ssl_.reset(SSL_new(context_.get()));
    socket_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Address to = resolve("127.0.0.1", port, true).value().at(0);
    EXPECT_EQ(::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&to.storage), to.length),
              0);
    SSL_set_fd(ssl_.get(), socket_.get());
    EXPECT_EQ(SSL_connect(ssl_.get()), 1);
  }
  void greet(const Hello& hello) {
    const GreetingBytes bytes = encode_greeting(FrameType::hello, hello);
    EXPECT_EQ(SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())),
              static_cast<int>(bytes.size()));
  }
  // Blocks until it is acknowledged, or hung up on.
  bool is_acknowledged() {
    GreetingBytes bytes{};
    return SSL_read(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())) ==
               static_cast<int>(bytes.size()) &&
           parse_greeting(FrameType::hello_ack, bytes).ok();
  }

 private:
  std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context_;
  std::unique_ptr<SSL, void (*)(SSL*)> ssl_;
  Fd socket_;
};

class CertificateNames : public ::testing::Test {
 protected:
  EngineOptions with(unsigned number, const Identity& own) const {
    EngineOptions options = options_of(number);
    options.tls = tls_of(own, job);
    options.dial_timeout = 500 * kMillisecond;
    options.repair_grace = 30 * kSecond;  // nothing here waits for it
    options.connections = 2;
    options.shared_memory = false;  // on one host links would not go over TLS at all
    return options;
  }
  static bool says(const std::string& message, const std::string& what) {
    return message.find(what) != std::string::npos;
  }

  Identity job = authority("job");
  Identity palm{"palm", {.issuer = &job, .uri = "URI:atoll://job/island/palm"}};
  Identity reef{"reef", {.issuer = &job, .uri = "URI:atoll://job/island/reef"}};
  Identity both{"both",
                {.issuer = &job, .uri = "URI:atoll://job/island/palm,URI:atoll://job/island/reef"}};
  Identity nobody{"atoll://job/island/palm", {.issuer = &job}};
};

TEST_F(CertificateNames, ThatAreRightLinkFromBothSides) {
  Island a(with(1, palm));
  Island b(with(2, reef));
  a.engine->expect(b.id, {}, {"atoll://job/island/cove", kReef});  // one of them will do
  b.engine->dial(a.id, {{"127.0.0.1", a.engine->port()}}, {kPalm});
  a.await_up(b.id);
  b.await_up(a.id);
  EXPECT_EQ(a.engine->stats().rejected_name + b.engine->stats().rejected_name, 0u);
}

TEST_F(CertificateNames, OfAnotherIslandAreRefusedByWhoIsDialled) {
  for (const Identity* wrong : {&reef, &both, &nobody}) {
    Island listener(with(1, palm));
    Island impostor(with(2, *wrong));  // it knows the secret and the id of palm's other island
    listener.engine->expect(impostor.id, {}, {kPalm});
    impostor.engine->dial(listener.id, "127.0.0.1", listener.engine->port());
    EXPECT_EQ(impostor.await_down(listener.id).reason, LinkEnd::unreachable);
    const Refused refused = listener.await<Refused>();
    EXPECT_TRUE(says(refused.message, "speaks for peer " + impostor.id.shorthand()))
        << refused.message;
    EXPECT_TRUE(says(refused.message, wrong == &reef ? "'" + kReef + "'" : "nobody"))
        << refused.message;
    EXPECT_GE(listener.engine->stats().rejected_name, 1u);
    EXPECT_EQ(listener.engine->stats().rejected_bad_hello, 0u);
    EXPECT_FALSE(listener.engine->stats().links.at(0).up);
  }
}

TEST_F(CertificateNames, OfAnotherIslandAreRefusedByWhoDials) {
  Island impostor(with(1, reef));
  Island dialler(with(2, palm));
  impostor.engine->expect(dialler.id);
  dialler.engine->dial(impostor.id, {{"127.0.0.1", impostor.engine->port()}}, {kPalm});
  const LinkDown down = dialler.await_down(impostor.id);
  EXPECT_EQ(down.reason, LinkEnd::unreachable);
  EXPECT_TRUE(says(down.message, "shows the certificate of '" + kReef + "'")) << down.message;
  EXPECT_TRUE(says(dialler.await<Refused>().message, kReef));
  EXPECT_GE(dialler.engine->stats().rejected_name, 1u);
  // It was told nothing, not even the job's secret.
  EXPECT_FALSE(impostor.engine->stats().links.at(0).up);
}

TEST_F(CertificateNames, AreComparedWhenThePeerBecomesKnownLater) {
  Island listener(with(1, palm));
  RawTlsPeer right(listener.engine->port(), reef);
  RawTlsPeer wrong(listener.engine->port(), palm);
  right.greet(hello_to(listener, 2));
  wrong.greet(hello_to(listener, 2));  // with another nonce: as if the right one had begun anew
  // Who takes in another one meanwhile, which is some turns' work, has read what was there before.
  listener.engine->expect(id_of(3));
  RawTlsPeer third(listener.engine->port(), palm);
  third.greet(hello_to(listener, 3));
  EXPECT_TRUE(third.is_acknowledged());
  listener.engine->expect(id_of(2), {}, {kReef});
  EXPECT_TRUE(right.is_acknowledged());
  EXPECT_FALSE(wrong.is_acknowledged());
  listener.await_up(id_of(2));
  EXPECT_EQ(listener.engine->stats().rejected_name, 1u);
  EXPECT_EQ(listener.engine->stats().rejected_bad_hello, 0u);
}

TEST_F(CertificateNames, AreComparedWhenAConnectionIsToTakeALostOnesPlace) {
  Island listener(with(1, palm));
  listener.engine->expect(id_of(2), {}, {kReef});
  Hello hello = hello_to(listener, 2);
  RawTlsPeer right(listener.engine->port(), reef);
  right.greet(hello);
  EXPECT_TRUE(right.is_acknowledged());
  listener.await_up(id_of(2));
  hello.flags = kHelloRepair;  // it knows the nonce, too, which nobody can
  hello.attempt = 7;
  RawTlsPeer wrong(listener.engine->port(), palm);
  wrong.greet(hello);
  EXPECT_FALSE(wrong.is_acknowledged());
  EXPECT_EQ(listener.engine->stats().rejected_name, 1u);
  EXPECT_EQ(listener.engine->stats().links.at(0).connections, 1u);
}

TEST_F(CertificateNames, AreComparedWhenALostConnectionIsDialledAgain) {
  Island a(with(1, palm));
  Island impostor(with(1, reef));
  Proxy proxy(a.engine->port(), {});
  Island b(with(2, reef));
  a.engine->expect(b.id, {}, {kReef});
  b.engine->dial(a.id, {{"127.0.0.1", proxy.port()}}, {kPalm});
  a.await_up(b.id);
  b.await_up(a.id);
  proxy.lead_to(impostor.engine->port());
  proxy.cut_all();
  EXPECT_TRUE(says(b.await<Refused>().message, "shows the certificate of '" + kReef + "'"));
  EXPECT_TRUE(b.engine->stats().links.at(0).up);  // and the right one is still waited for
  proxy.lead_to(a.engine->port());
  const View view{1, {a.id, b.id}};
  a.install(view);
  b.install(view);
  const OpId first = a.barrier();
  const OpId second = b.barrier();
  EXPECT_EQ(a.code(first), Code::ok);
  EXPECT_EQ(b.code(second), Code::ok);
  EXPECT_GE(b.engine->stats().links.at(0).repairs, 1u);
}

// A relay is a member. Its islands here have links with an asker and with another engine under the id
// of whom the asker wants.
class RelayedNames : public CertificateNames {
 protected:
  void SetUp() override {
    for (Island* one : {&asker, &other}) {
      relay.engine->expect(one->id);
      one->engine->dial(relay.id, "127.0.0.1", relay.engine->port());
      one->await_up(relay.id);
      relay.await_up(one->id);
    }
    relay.engine->carry(asker.id, other.id, kTicket);
  }
  void ask(const Names& names) {
    asker.engine->dial(other.id, {{"127.0.0.1", relay.engine->port()}}, relay.id, kTicket, names);
  }

  Island relay{with(3, reef)};
  Island asker{with(1, palm)};
  Island other{with(2, reef)};
};

TEST_F(RelayedNames, KeepARelayFromAnsweringInAnothersPlace) {
  other.engine->expect(asker.id);
  ask({"atoll://job/island/cove"});
  const LinkDown down = asker.await_down(other.id);
  EXPECT_TRUE(says(down.message, "shows the certificate of '" + kReef + "'")) << down.message;
  EXPECT_GE(asker.engine->stats().rejected_name, 1u);
}

TEST_F(RelayedNames, KeepARelayFromCallingInAnothersName) {
  other.engine->expect(asker.id, {}, {"atoll://job/island/cove"});
  ask({kReef});
  EXPECT_EQ(asker.await_down(other.id).reason, LinkEnd::unreachable);
  const Refused refused = other.await<Refused>();
  EXPECT_TRUE(says(refused.message, "'" + kPalm + "'")) << refused.message;
  EXPECT_GE(other.engine->stats().rejected_name, 1u);
}

}  // namespace
}  // namespace reef::testing
