package app;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Scanner;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.WebApplicationType;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.builder.SpringApplicationBuilder;
import org.springframework.cloud.client.loadbalancer.LoadBalanced;
import org.springframework.cloud.context.config.annotation.RefreshScope;
import org.springframework.context.ConfigurableApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.http.client.SimpleClientHttpRequestFactory;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.client.RestTemplate;

/**
 * A provider that greets with a word from its configuration, or a consumer that calls it by its service's name, as Spring
 * Cloud Alibaba's users write them. Everything else is said by the command line (driver/apps.py); the consumer
 * answers the line protocol's {@code call}.
 */
@SpringBootApplication
public class Application {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream OUT = System.out;

    public static void main(String[] arguments) throws Exception {
        System.setOut(System.err); // What Spring logs is no part of the line protocol.
        boolean provides = arguments[0].equals("provider");
        ConfigurableApplicationContext context = new SpringApplicationBuilder(Application.class)
                .web(provides ? WebApplicationType.SERVLET : WebApplicationType.NONE)
                .run(arguments);
        say(Map.of("event", "ready", "sdk", "spring-cloud-alibaba 2025.0.0.0"));
        Scanner in = new Scanner(System.in, StandardCharsets.UTF_8);
        while (in.hasNextLine()) {
            JsonNode command = JSON.readTree(in.nextLine());
            if (command.get("op").asText().equals("quit")) {
                break;
            }
            Map<String, Object> answer = new LinkedHashMap<>();
            answer.put("id", command.get("id").asInt());
            try {
                String url = "http://" + command.get("service").asText() + "/greet";
                answer.put("ok", context.getBean(RestTemplate.class).getForObject(url, String.class));
            } catch (RuntimeException error) {
                answer.put("error", String.valueOf(error));
            }
            say(answer);
        }
        context.close(); // Deregisters, as a graceful end does.
        Runtime.getRuntime().halt(0);
    }

    private static void say(Map<String, Object> line) throws Exception {
        OUT.println(JSON.writeValueAsString(line));
        OUT.flush();
    }

    @Bean
    @LoadBalanced
    RestTemplate http() {
        SimpleClientHttpRequestFactory requests = new SimpleClientHttpRequestFactory();
        requests.setConnectTimeout(1000);
        requests.setReadTimeout(3000);
        return new RestTemplate(requests);
    }

    @RestController
    @RefreshScope
    static class Greeter {
        @Value("${greeting:nothing}")
        private String greeting;

        @Value("${provider.name:nobody}")
        private String name;

        @GetMapping("/greet")
        String greet() {
            return greeting + " from " + name;
        }
    }
}
